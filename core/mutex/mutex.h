// std::mutex with annotations that clang's thread-safety analysis checks.
//
// Not absl::Mutex: Debian's Abseil is not built for ThreadSanitizer, which then
// reports races that are none.

#pragma once

#include <mutex>

#if defined(__clang__)
#define VMBFS_ANNOTATION(x) __attribute__((x))
#else
#define VMBFS_ANNOTATION(x)
#endif

#define VMBFS_CAPABILITY(name) VMBFS_ANNOTATION(capability(name))
#define VMBFS_SCOPED_CAPABILITY VMBFS_ANNOTATION(scoped_lockable)
#define VMBFS_GUARDED_BY(mutex) VMBFS_ANNOTATION(guarded_by(mutex))
#define VMBFS_REQUIRES(...) VMBFS_ANNOTATION(requires_capability(__VA_ARGS__))
#define VMBFS_EXCLUDES(...) VMBFS_ANNOTATION(locks_excluded(__VA_ARGS__))
#define VMBFS_ACQUIRE(...) VMBFS_ANNOTATION(acquire_capability(__VA_ARGS__))
#define VMBFS_RELEASE(...) VMBFS_ANNOTATION(release_capability(__VA_ARGS__))

namespace vmbfs {

class VMBFS_CAPABILITY("mutex") Mutex {
 public:
  void Lock() VMBFS_ACQUIRE() { mutex_.lock(); }
  void Unlock() VMBFS_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class VMBFS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) VMBFS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() VMBFS_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace vmbfs
