// The state and the operands of the neurons behind a tile of a product. They stay with a thread through all steps.
#pragma once

#include <algorithm>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"

namespace snn {

class NeuronFields {
  public:
    NeuronFields(const NeuronProblem& problem, int64_t most) : problem_(problem) {
        for (Field* field : fields_) field->values.assign(most, field->is_uniform() ? field->operand.data[0] : 0.f);
    }
    NeuronFields(const NeuronFields&) = delete;

    void prefetch(int64_t first) const {
        for (const Field* field : fields_)
            if (field->operand.period == problem_.neurons) __builtin_prefetch(field->operand.data + first);
        __builtin_prefetch(problem_.input[0].x_out + first, 1);
        __builtin_prefetch(problem_.v_out + first, 1);
    }

    // Of `count` neurons from `first` on, to the places from `place` on.
    void load(int64_t first, int count, int64_t place) {
        for (Field* field : fields_) {
            const bool is_state = field == &x_ || field == &v_;
            if (is_state || !(field->is_uniform() || is_scale(*field)))
                gather(field->operand, first, count, field->values.data() + place);
        }
    }

    void save(int64_t first, int count, int64_t place) const {
        std::copy_n(x_.values.data() + place, count, problem_.input[0].x_out + first);
        std::copy_n(v_.values.data() + place, count, problem_.v_out + first);
    }

    Tile tile(int count) {
        Tile tile{};
        tile.count = count;
        tile.x[0] = x_.values.data();
        tile.v = v_.values.data();
        tile.offset[0] = offset_.values.data();
        tile.scale = scale_.values.data();
        for (int k = 0; k < kParameters; ++k)
            tile.parameter[k] = (is_scale(parameter_[k]) ? scale_ : parameter_[k]).values.data();
        return tile;
    }

  private:
    struct Field {
        const Operand& operand;
        std::vector<float> values;

        bool is_uniform() const { return operand.period == 1; }
    };

    // As parameters are that a function does not have.
    bool is_scale(const Field& field) const {
        return &field != &scale_ && field.operand.data == scale_.operand.data &&
               field.operand.inner == scale_.operand.inner && field.operand.period == scale_.operand.period;
    }

    const NeuronProblem& problem_;
    Field x_{problem_.input[0].x, {}}, v_{problem_.v, {}}, offset_{problem_.input[0].offset, {}};
    Field scale_{problem_.scale, {}};
    Field parameter_[kParameters] = {{problem_.parameter[0], {}}, {problem_.parameter[1], {}}};
    Field* const fields_[4 + kParameters] = {&x_, &v_, &offset_, &scale_, &parameter_[0], &parameter_[1]};
};

}  // namespace snn
