// Memory of the kernels: aligned, uninitialised, in huge pages where it is large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace snn {

constexpr size_t kHugePage = size_t{1} << 21;

// Asks for huge pages under a large block that nobody has touched yet: fresh memory otherwise costs a page fault every
// 4 KB, which takes longer than to fill it. A wish; where it is not granted nothing changes.
inline void prefer_huge_pages(void* data, size_t bytes) {
#if defined(__linux__)
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePage * kHugePage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

// An uninitialised array on the boundary of a cache line, or of a huge page if it is as large.
template <class T>
class Aligned {
  public:
    explicit Aligned(size_t count)
        : boundary_{count * sizeof(T) < kHugePage ? 64 : kHugePage},
          data_(static_cast<T*>(::operator new(count * sizeof(T), boundary_))) {
        prefer_huge_pages(data_, count * sizeof(T));
    }
    ~Aligned() { ::operator delete(data_, boundary_); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    T* data() { return data_; }
    const T* data() const { return data_; }

  private:
    std::align_val_t boundary_;
    T* data_;
};

}  // namespace snn
