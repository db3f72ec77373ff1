#include "tools/vmbfsctl/upload.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::ctl {
namespace {

using std::chrono::milliseconds;

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint64_t kBytesPerSecondMin = 4 << 20;

absl::Status FileError(const std::string& path, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": ", std::generic_category().message(error)));
}

// Reads the file from its beginning to its end.
class FileReader {
 public:
  static absl::StatusOr<FileReader> Open(const std::string& path) {
    hyperv::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return FileError(path, errno);
    struct stat found{};
    if (::fstat(fd.get(), &found) != 0) return FileError(path, errno);
    if (!S_ISREG(found.st_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " is not a regular file: write the content to one first"));
    }
    return FileReader(path, std::move(fd), found.st_size);
  }

  int64_t size_bytes() const { return size_bytes_; }
  void Rewind() { offset_ = 0; }

  // Leaves `chunk` empty at the end.
  absl::Status Next(std::string& chunk) {
    chunk.resize(kChunkBytes);
    ssize_t bytes = 0;
    do {
      bytes = ::pread(fd_.get(), chunk.data(), chunk.size(), offset_);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) return FileError(path_, errno);
    offset_ += bytes;
    chunk.resize(static_cast<size_t>(bytes));
    return absl::OkStatus();
  }

 private:
  FileReader(std::string path, hyperv::UniqueFd fd, int64_t size_bytes)
      : path_(std::move(path)), fd_(std::move(fd)), size_bytes_(size_bytes) {}

  std::string path_;
  hyperv::UniqueFd fd_;
  int64_t size_bytes_;
  off_t offset_ = 0;
};

absl::StatusOr<std::string> Digest(FileReader& file) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  bool computed = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::string chunk;
  do {
    if (absl::Status read = file.Next(chunk); !read.ok()) return read;
    computed = computed && EVP_DigestUpdate(context.get(), chunk.data(), chunk.size());
  } while (!chunk.empty());
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_bytes = 0;
  if (!computed || !EVP_DigestFinal_ex(context.get(), digest, &digest_bytes)) {
    return absl::InternalError("cannot compute a SHA-256 digest");
  }
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), digest_bytes));
}

milliseconds UploadTimeout(milliseconds timeout, int64_t size_bytes) {
  return timeout + std::chrono::seconds(static_cast<uint64_t>(size_bytes) / kBytesPerSecondMin);
}

}  // namespace

absl::StatusOr<v1::Blob> UploadFile(rpc::Client& client, const std::string& path,
                                    milliseconds timeout) {
  absl::StatusOr<FileReader> file = FileReader::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string> sha256 = Digest(*file);
  if (!sha256.ok()) return sha256.status();

  v1::GetBlobRequest get;
  get.set_name(absl::StrCat("blobs/", *sha256));
  absl::StatusOr<v1::Blob> existing = client.GetBlob(get);
  if (!existing.ok() && !absl::IsNotFound(existing.status())) return existing;
  // One of another size was damaged on the daemon's disk: uploading mends it.
  if (existing.ok() && existing->size_bytes() == file->size_bytes()) return existing;

  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(file->size_bytes());
  options.set_expected_sha256(*sha256);
  file->Rewind();
  return client.UploadBlob(
      options, [&file](std::string& chunk) { return file->Next(chunk); },
      UploadTimeout(timeout, file->size_bytes()));
}

}  // namespace vmbfs::ctl
