// A device "cuda" for a PyTorch without one: tensors on it lie in the host's memory and every operation on them is the
// CPU's. What a GPU refuses is refused: tensors of two devices in one operation.
#include <ATen/ATen.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace {

using c10::Device, c10::DeviceType, c10::IValue;

const Device kDevice(DeviceType::CUDA, 0);

struct Guard final : c10::impl::DeviceGuardImplInterface {
    DeviceType type() const override { return DeviceType::CUDA; }
    Device exchangeDevice(Device) const override { return kDevice; }
    Device getDevice() const override { return kDevice; }
    void setDevice(Device) const override {}
    void uncheckedSetDevice(Device) const noexcept override {}
    c10::Stream getStream(Device) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
    c10::Stream getDefaultStream(Device) const override { return getStream(kDevice); }
    c10::Stream exchangeStream(c10::Stream) const override { return getStream(kDevice); }
    c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// Memory of a storage as that of another device; the storage lives as long as it is used.
c10::DataPtr memory_of(const c10::Storage& storage, Device device) {
    auto* keep = new c10::Storage(storage);
    return {storage.mutable_data(), keep, [](void* kept) { delete static_cast<c10::Storage*>(kept); }, device};
}

c10::Storage on(Device device, const c10::Storage& storage) {
    return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), storage.nbytes(),
                                                 memory_of(storage, device), c10::GetAllocator(device.type()), true);
}

at::Tensor of_storage(c10::Storage storage, const at::Tensor& like) {
    const auto backend = storage.device_type() == DeviceType::CPU ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
    auto tensor =
        at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(backend), like.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    tensor._set_conj(like.is_conj());
    tensor._set_neg(like.is_neg());
    return tensor;
}

struct Allocator final : c10::Allocator {
    c10::DataPtr allocate(size_t size) override {
        c10::DataPtr data = c10::GetAllocator(DeviceType::CPU)->allocate(size);
        auto* keep = new c10::DataPtr(std::move(data));
        return {keep->get(), keep, [](void* kept) { delete static_cast<c10::DataPtr*>(kept); }, kDevice};
    }
    void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
};
Allocator allocator;
const bool is_set = [] {
    c10::SetAllocator(DeviceType::CUDA, &allocator);
    return true;
}();

// The tensors of a call, each where the CPU finds it, and what becomes of them.
class Call {
  public:
    explicit Call(const c10::OperatorHandle& op) : name_(op.schema().name()) {}

    IValue to_host(const IValue& value) {
        if (value.isTensor()) return host(value.toTensor());
        if (value.isDevice()) return value.toDevice().is_cuda() ? IValue(Device(DeviceType::CPU)) : value;
        if (value.isTensorList() || value.isOptionalTensorList())
            return each(value, [this](const IValue& item) { return to_host(item); });
        return value;
    }

    IValue to_device(const IValue& value) {
        if (value.isTensor()) return device(value.toTensor());
        if (value.isTensorList()) return each(value, [this](const IValue& item) { return to_device(item); });
        return value;
    }

    // What was resized, or given other memory, on the host.
    void write_back() {
        for (auto& [here, there] : pairs_) {
            if (here.sizes() == there.sizes() && here.strides() == there.strides() &&
                here.storage().data() == there.storage().data())
                continue;
            auto* impl = there.unsafeGetTensorImpl();
            if (here.storage().data() != there.storage().data())
                impl->set_storage_keep_dtype(on(kDevice, here.storage()));
            impl->set_sizes_and_strides(here.sizes(), here.strides(), here.storage_offset());
        }
    }

  private:
    template <class F>
    static IValue each(const IValue& value, F change) {
        if (value.isTensorList()) {
            c10::List<at::Tensor> out;
            for (const at::Tensor& item : value.toTensorVector()) out.push_back(change(IValue(item)).toTensor());
            return out;
        }
        c10::List<std::optional<at::Tensor>> out;
        for (const std::optional<at::Tensor>& item : value.toOptionalTensorVector())
            out.push_back(item ? std::optional<at::Tensor>(change(IValue(*item)).toTensor()) : std::nullopt);
        return out;
    }

    at::Tensor host(const at::Tensor& tensor) {
        if (!tensor.defined()) return tensor;
        if (!tensor.is_cuda()) {
            const bool may = tensor.dim() == 0 || name_ == "aten::copy_" || name_ == "aten::index" ||
                             name_ == "aten::_copy_from_and_resize";
            TORCH_CHECK(may,
                        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and ",
                        tensor.device(), " in ", name_);
            return tensor;
        }
        at::Tensor here = of_storage(on(DeviceType::CPU, tensor.storage()), tensor);
        pairs_.emplace_back(here, tensor);
        return here;
    }

    at::Tensor device(const at::Tensor& tensor) {
        if (!tensor.defined() || !tensor.is_cpu()) return tensor;
        for (auto& [here, there] : pairs_) {
            if (here.is_same(tensor)) return there;
            if (here.storage().is_alias_of(tensor.storage())) return of_storage(there.storage(), tensor);
        }
        return of_storage(on(kDevice, tensor.storage()), tensor);
    }

    const std::string name_;
    std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;
};

void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Call call(op);
    const size_t arguments = op.schema().arguments().size(), results = op.schema().returns().size();
    for (size_t i = stack->size() - arguments; i < stack->size(); ++i) (*stack)[i] = call.to_host((*stack)[i]);
    op.callBoxed(stack);
    call.write_back();
    for (size_t i = stack->size() - results; i < stack->size(); ++i) (*stack)[i] = call.to_device((*stack)[i]);
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
    self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
    self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
    return self;
}

torch::CppFunction boxed() { return torch::CppFunction::makeFromBoxedFunction<&on_host>(); }

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(boxed()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    // Those that PyTorch makes of others, which only a GPU has.
    for (const char* name : {"copy_", "convolution", "convolution_backward"}) m.impl(name, boxed());
    m.impl("set_.source_Storage_storage_offset", set_storage);
}
