// Carries the product of two matrices through all time-steps on one thread: decoded inputs, targets and estimates stay
// in its caches.
#include "matmul.h"

#include <algorithm>
#include <cstring>

#include "matmul_tile.h"
#include "memory.h"
#include "neuron_tile.h"
#include "team.h"

namespace snn {
namespace {

int64_t filled(int64_t count) { return (count + kMatrixLanes - 1) / kMatrixLanes * kMatrixLanes; }

// A matrix of a batch, from one of its rows on.
struct Matrix {
    Matrix(const MatrixView& view, const std::vector<int64_t>& batch, int64_t number, int64_t first_row, int64_t size)
        : data(static_cast<const char*>(view.data)),
          row(view.stride[batch.size()]),
          column(view.stride[batch.size() + 1]) {
        int64_t offset = first_row * row;
        for (size_t d = batch.size(); d-- > 0; number /= batch[d]) offset += number % batch[d] * view.stride[d];
        data += offset * size;
    }

    const char* data;
    int64_t row, column;  // strides
};

// Numbers in lines of neighbours, filled up with zeros; one line where all are the same. Lines are rows or columns.
class Lines {
  public:
    Lines(int64_t lines, int64_t length) : length_(filled(length)), values_(filled(lines) * length_) {
        std::fill_n(values_.data(), filled(lines) * length_, 0.f);
    }

    void load(const Matrix& from, bool columns, int64_t lines, int64_t length, bool each = false) {
        const int64_t line = columns ? from.column : from.row, step = columns ? from.row : from.column;
        stride = line == 0 && !each ? 0 : length_;
        const auto* data = reinterpret_cast<const float*>(from.data);
        for (int64_t l = 0; l < (stride ? lines : 1); ++l) {
            float* const to = values_.data() + l * length_;
            if (step == 0) std::fill_n(to, length, data[l * line]);
            if (step == 1) std::copy_n(data + l * line, length, to);
            for (int64_t i = 0; step > 1 && i < length; ++i) to[i] = data[l * line + i * step];
        }
    }

    void save(float* to, bool columns, int64_t lines, int64_t length) const {
        const int64_t line = columns ? 1 : length, step = columns ? lines : 1;
        for (int64_t l = 0; l < lines; ++l) {
            const float* const from = values_.data() + l * length_;
            if (step == 1) std::copy_n(from, length, to + l * line);
            for (int64_t i = 0; step > 1 && i < length; ++i) to[l * line + i * step] = from[i];
        }
    }

    float* data() { return values_.data(); }

    int64_t stride = 0;  // from line to line

  private:
    int64_t length_;
    Aligned<float> values_;
};

int64_t bytes_of(const MatmulInput& input) {  // of a current
    if (input.train) return 1;
    return input.dtype == DType::float32 ? sizeof(float) : sizeof(uint16_t);
}

// One of the two matrices, its lines those of its currents in memory.
class Decoded {
  public:
    Decoded(const MatmulInput& input, const std::vector<int64_t>& batch, int64_t rows, int64_t columns)
        : lines_are_columns(input.current.stride[batch.size()] == 1 && input.current.stride[batch.size() + 1] != 1),
          input_(input),
          batch_(batch),
          size_(bytes_of(input)),
          lines_(lines_are_columns ? columns : rows),
          length_(lines_are_columns ? rows : columns),
          x_(lines_, length_),
          offset_(lines_, length_),
          amplitude_(lines_, length_) {}

    // Rows from the first on of a matrix of the batch.
    void load(int64_t number, int64_t first_row, int64_t rows) {
        (lines_are_columns ? length_ : lines_) = rows;
        const Matrix current(input_.current, batch_, number, first_row, size_);
        current_ = current.data;
        stride_ = lines_are_columns ? current.column : current.row;
        const auto field = [&](Lines& to, const MatrixView& view, bool each) {
            to.load({view, batch_, number, first_row, sizeof(float)}, lines_are_columns, lines_, length_, each);
        };
        field(x_, input_.x, true);
        field(offset_, input_.offset, false);
        field(amplitude_, input_.amplitude, false);
    }

    void step(const MatmulKernels& kernels, int64_t t, float eta, bool last) {
        const int64_t place = input_.train ? t / kStepsPerByte : t;
        const int64_t ahead = input_.train || last ? 0 : input_.step_stride;
        const MatrixCurrents now{input_.dtype, input_.train, current_ + place * input_.step_stride * size_,
                                 stride_,      ahead,        static_cast<int>(t % kStepsPerByte)};
        kernels.decode(matrix(), now, eta);
    }

    void save(float* to) const { x_.save(to, lines_are_columns, lines_, length_); }

    DecodedMatrix matrix() {
        return {lines_,         length_,        x_.data(),         x_.stride,
                offset_.data(), offset_.stride, amplitude_.data(), amplitude_.stride};
    }

    const bool lines_are_columns;

  private:
    const MatmulInput& input_;
    const std::vector<int64_t>& batch_;
    const int64_t size_;
    int64_t lines_, length_;
    Lines x_, offset_, amplitude_;
    const char* current_ = nullptr;
    int64_t stride_ = 0;
};

// Some rows of the product of two matrices.
class Worker {
  public:
    Worker(const MatmulProblem& problem, int64_t most_rows)
        : p_(problem),
          columns_(filled(problem.columns)),
          a_(problem.a, problem.batch, most_rows, problem.inner),
          b_(problem.b, problem.batch, problem.inner, problem.columns),
          v_(most_rows, problem.columns),
          scale_(most_rows, problem.columns),
          panels_(filled(problem.inner) * columns_),
          fired_(most_rows * columns_) {}

    void run(int64_t number, int64_t first_row, int64_t rows) {
        a_.load(number, first_row, rows);
        b_.load(number, 0, p_.inner);
        v_.load({p_.v, p_.batch, number, first_row, sizeof(float)}, false, rows, p_.columns, true);
        scale_.load({p_.scale, p_.batch, number, first_row, sizeof(float)}, false, rows, p_.columns);
        const int64_t matrix = number * p_.rows + first_row;
        for (int64_t t = 0; t < p_.timesteps; t += kStepsPerByte) {
            std::fill_n(fired_.data(), rows * columns_, uint8_t{0});
            for (int64_t s = t; s < std::min(t + kStepsPerByte, p_.timesteps); ++s) step(s, rows);
            uint8_t* const bytes = p_.bytes + t / kStepsPerByte * all_rows() * p_.columns + matrix * p_.columns;
            for (int64_t row = 0; row < rows; ++row)
                std::memcpy(bytes + row * p_.columns, fired_.data() + row * columns_, p_.columns);
        }
        a_.save(p_.a.x_out + matrix * p_.inner);
        if (first_row == 0) b_.save(p_.b.x_out + number * p_.inner * p_.columns);
        v_.save(p_.v_out + matrix * p_.columns, false, rows, p_.columns);
    }

  private:
    void step(int64_t t, int64_t rows) {
        const float eta = p_.eta[t];
        const bool last = t + 1 == p_.timesteps;
        a_.step(kernels_, t, eta, last);
        b_.step(kernels_, t, eta, last);
        kernels_.pack(b_.matrix(), b_.lines_are_columns, filled(p_.inner), columns_, panels_.data());
        const DecodedMatrix a = a_.matrix();
        const int64_t a_row = a_.lines_are_columns ? 1 : a.x_stride, a_inner = a_.lines_are_columns ? a.x_stride : 1;
        kernels_.chase({rows, p_.inner, columns_, a.x, a_row, a_inner, panels_.data(), filled(p_.inner), v_.data(),
                        scale_.data(), scale_.stride, fired_.data()},
                       eta, static_cast<int>(t % kStepsPerByte));
    }

    int64_t all_rows() const {
        int64_t rows = p_.rows;
        for (const int64_t size : p_.batch) rows *= size;
        return rows;
    }

    const MatmulProblem& p_;
    const MatmulKernels& kernels_ = *tile_kernels_here().matmul;
    const int64_t columns_;
    Decoded a_, b_;
    Lines v_, scale_;
    Aligned<float> panels_;
    Aligned<uint8_t> fired_;
};

}  // namespace

void matmul_cpu(const MatmulProblem& p, int threads) {
    int64_t matrices = 1;
    for (const int64_t size : p.batch) matrices *= size;
    // Few matrices are split into blocks of rows, each of which decodes all of b.
    const int64_t parts = matrices >= threads ? 1 : std::min<int64_t>(threads, p.rows);
    const int64_t rows = (p.rows + parts - 1) / parts;
    const int team = team_of(threads, matrices * parts);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        Worker worker(p, rows);
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < matrices * parts; ++job) {
            const int64_t first = job % parts * rows;
            if (first < p.rows) worker.run(job / parts, first, std::min(rows, p.rows - first));
        }
    }
}

}  // namespace snn
