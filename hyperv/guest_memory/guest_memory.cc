#include "hyperv/guest_memory/guest_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmbfs::hyperv {

// Thread safety: the last holder may be on any thread.
class MappedRegion {
 public:
  MappedRegion(std::byte* data, size_t bytes, MappingBudget::Share share)
      : data_(data), bytes_(bytes), share_(std::move(share)) {}
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  ~MappedRegion() { ::munmap(data_, bytes_); }

  std::byte* data() const { return data_; }
  uintptr_t start() const { return reinterpret_cast<uintptr_t>(data_); }

 private:
  std::byte* data_;
  size_t bytes_;
  MappingBudget::Share share_;
};

struct GuestMemory::Region {
  MemoryRegionDescription description;
  UniqueFd fd;  // for pages that are mapped twice
  std::shared_ptr<const MappedRegion> mapping;
  bool vanished = false;  // at least a page of it
  // Parts of double mappings that show pages of it.
  struct Part {
    std::weak_ptr<const DoubleMapping> mapping;
    size_t offset = 0;
    size_t bytes = 0;
  };
  std::vector<Part> parts;

  uint64_t gpa_end() const { return description.gpa + description.bytes; }

  void AddPart(Part part) {
    std::erase_if(parts, [](const Part& known) { return known.mapping.expired(); });
    parts.push_back(std::move(part));
  }
  bool MissedInParts(const VanishedMemoryWatch& watch) const {
    return std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
      const auto locked = part.mapping.lock();
      return locked != nullptr && locked->Missed(watch, part.offset, part.bytes);
    });
  }
};

namespace {

std::string Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

absl::Status Refuse(const MemoryRegionDescription& region, absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("memory region ", region.id, " refused: ", reason));
}

bool IsPageAligned(uint64_t value) { return value % kPageBytes == 0; }

absl::Status CheckNumbers(const MemoryRegionDescription& region) {
  if (region.bytes == 0) return Refuse(region, "its size is 0");
  if (!IsPageAligned(region.gpa) || !IsPageAligned(region.bytes) ||
      !IsPageAligned(region.file_offset)) {
    return Refuse(region, absl::StrCat("address ", Hex(region.gpa), ", size ", Hex(region.bytes),
                                       " and file offset ", Hex(region.file_offset),
                                       " must be multiples of ", kPageBytes));
  }
  if (region.gpa >= GuestMemory::kGpaLimit || region.bytes > GuestMemory::kGpaLimit - region.gpa) {
    return Refuse(region, absl::StrCat("address ", Hex(region.gpa), " and size ", Hex(region.bytes),
                                       " go beyond the limit of ", Hex(GuestMemory::kGpaLimit)));
  }
  return absl::OkStatus();
}

// Asks for the seals first: a file that answers is in memory, so that no file
// system of the VMM's own is asked; and only under F_SEAL_SHRINK does the size
// that fstat tells afterwards stay a lower bound.
absl::Status CheckFile(const MemoryRegionDescription& region, int fd, bool allow_unsealed) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return Refuse(region, "its descriptor is no memfd (it has no seals)");
  if ((seals & F_SEAL_SHRINK) == 0 && !allow_unsealed) {
    return Refuse(region, absl::StrCat("its memfd is not sealed against shrinking (seals ",
                                       Hex(static_cast<uint64_t>(seals)),
                                       "), and unsealed memory is not allowed for this VM"));
  }
  struct stat file{};
  if (::fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) {
    return Refuse(region, "its descriptor is no regular file");
  }
  // In huge pages only whole ones can be mapped, and unmapped again.
  struct statfs file_system{};
  if (::fstatfs(fd, &file_system) != 0) return Refuse(region, "its file system has no answer");
  const auto block_bytes = static_cast<uint64_t>(file_system.f_bsize);
  if (file_system.f_type == HUGETLBFS_MAGIC &&
      (region.file_offset % block_bytes != 0 || region.bytes % block_bytes != 0)) {
    return Refuse(region, absl::StrCat("its memfd has pages of ", block_bytes,
                                       " bytes; size and file offset must be multiples of that"));
  }
  const auto file_bytes = static_cast<uint64_t>(file.st_size);
  if (region.file_offset > file_bytes || region.bytes > file_bytes - region.file_offset) {
    return Refuse(region,
                  absl::StrCat("its memfd has ", file_bytes, " bytes; offset ", region.file_offset,
                               " and size ", region.bytes, " need more"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const MappedRegion>> MapFile(const MemoryRegionDescription& region,
                                                            int fd, MappingBudget& budget) {
  std::optional<MappingBudget::Share> share = budget.Take();
  if (!share) {
    return absl::ResourceExhaustedError(
        absl::StrCat("memory region ", region.id, " refused: the guest memory of all VMs has ",
                     budget.max(), " mappings, which is the limit of this host"));
  }
  void* address = ::mmap(nullptr, region.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                         static_cast<off_t>(region.file_offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    const std::string reason = absl::StrCat("mapping ", region.bytes, " bytes for reading and ",
                                            "writing failed: ", std::strerror(error));
    if (error == ENOMEM || error == EAGAIN) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory region ", region.id, " refused: ", reason));
    }
    return Refuse(region, reason);
  }
  // A guest's memory is large and private: it belongs in no core dump.
  ::madvise(address, region.bytes, MADV_DONTDUMP);
  return std::make_shared<const MappedRegion>(static_cast<std::byte*>(address), region.bytes,
                                              *std::move(share));
}

}  // namespace

GuestMemory::GuestMemory(GuestMemoryOptions options) : options_(options) {}
GuestMemory::~GuestMemory() = default;

absl::Status GuestMemory::AddRegion(const MemoryRegionDescription& description, UniqueFd fd) {
  if (absl::Status status = CheckNumbers(description); !status.ok()) return status;
  for (const auto& [gpa, region] : by_gpa_) {
    if (region->description.id == description.id) {
      return Refuse(description, absl::StrCat("the region at ", Hex(gpa), " has this id already"));
    }
    if (description.gpa < region->gpa_end() && gpa < description.gpa + description.bytes) {
      return Refuse(description, absl::StrCat("addresses ", Hex(description.gpa), " to ",
                                              Hex(description.gpa + description.bytes),
                                              " overlap region ", region->description.id, " at ",
                                              Hex(gpa), " to ", Hex(region->gpa_end())));
    }
  }
  if (by_gpa_.size() >= kRegionsMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory region ", description.id, " refused: a VM has at most ", kRegionsMax, " regions"));
  }
  if (description.bytes > kTotalBytesMax - total_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("memory region ", description.id, " refused: ", description.bytes,
                     " bytes on top of ", total_bytes_, " exceed the limit of ", kTotalBytesMax));
  }
  if (absl::Status status = CheckFile(description, fd.get(), options_.allow_unsealed);
      !status.ok()) {
    return status;
  }
  auto mapping = MapFile(description, fd.get(), options_.budget);
  if (!mapping.ok()) return mapping.status();

  auto region = std::make_unique<Region>();
  region->description = description;
  region->fd = std::move(fd);
  region->mapping = *std::move(mapping);
  by_gpa_.emplace(description.gpa, std::move(region));
  total_bytes_ += description.bytes;
  return absl::OkStatus();
}

absl::Status GuestMemory::RemoveRegion(uint32_t id) {
  const auto found = std::find_if(by_gpa_.begin(), by_gpa_.end(), [id](const auto& entry) {
    return entry.second->description.id == id;
  });
  if (found == by_gpa_.end()) {
    return absl::NotFoundError(absl::StrCat("no memory region has the id ", id));
  }
  total_bytes_ -= found->second->description.bytes;
  by_gpa_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<GuestMemory::Region*> GuestMemory::Find(uint64_t gpa) const {
  auto behind = by_gpa_.upper_bound(gpa);
  Region* region = behind == by_gpa_.begin() ? nullptr : std::prev(behind)->second.get();
  if (region == nullptr || gpa >= region->gpa_end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("guest address ", Hex(gpa), " lies in no memory region"));
  }
  if (region->vanished) {
    return absl::FailedPreconditionError(
        absl::StrCat("memory of region ", region->description.id,
                     " vanished; it is of no use until the VMM adds it again"));
  }
  return region;
}

absl::StatusOr<GuestMemory::Region*> GuestMemory::FindPage(uint64_t page_frame) const {
  if (page_frame >= kGpaLimit / kPageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("guest page ", Hex(page_frame), " lies in no memory region"));
  }
  return Find(page_frame * kPageBytes);
}

std::byte* GuestMemory::PageOf(const Region& region, uint64_t page_frame) {
  return region.mapping->data() + (page_frame * kPageBytes - region.description.gpa);
}

absl::StatusOr<std::vector<GuestRun>> GuestMemory::MapPages(
    std::span<const uint64_t> page_frames) const {
  std::vector<GuestRun> runs;
  for (const uint64_t frame : page_frames) {
    const absl::StatusOr<Region*> region = FindPage(frame);
    if (!region.ok()) return region.status();
    const std::shared_ptr<const MappedRegion>& mapping = (*region)->mapping;
    std::byte* page = PageOf(**region, frame);
    // Regions that happen to lie side by side are kept apart: a run keeps one
    // mapping alive.
    if (!runs.empty() && runs.back().region == mapping &&
        runs.back().data + runs.back().bytes == page) {
      runs.back().bytes += kPageBytes;
    } else {
      runs.push_back({mapping, page, kPageBytes});
    }
  }
  return runs;
}

absl::StatusOr<std::shared_ptr<const DoubleMapping>> GuestMemory::MapTwice(
    std::span<const uint64_t> page_frames) const {
  std::vector<FilePiece> pieces;
  std::vector<Region*> regions;  // of the pieces
  for (const uint64_t frame : page_frames) {
    const absl::StatusOr<Region*> region = FindPage(frame);
    if (!region.ok()) return region.status();
    const MemoryRegionDescription& description = (*region)->description;
    const uint64_t offset = description.file_offset + (frame * kPageBytes - description.gpa);
    if (!pieces.empty() && regions.back() == *region &&
        pieces.back().offset + pieces.back().bytes == offset) {
      pieces.back().bytes += kPageBytes;
    } else if (pieces.size() == DoubleMapping::kPiecesMax) {
      return absl::ResourceExhaustedError("the pages lie in too many pieces");
    } else {
      pieces.push_back({(*region)->fd.get(), offset, kPageBytes});
      regions.push_back(*region);
    }
  }
  auto mapping = DoubleMapping::Make(pieces, options_.ring_budget);
  if (!mapping.ok()) return mapping;
  size_t offset = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    regions[i]->AddPart({.mapping = *mapping, .offset = offset, .bytes = pieces[i].bytes});
    offset += pieces[i].bytes;
  }
  return mapping;
}

absl::Status GuestMemory::CheckPages(std::span<const uint64_t> page_frames) const {
  for (const uint64_t frame : page_frames) {
    if (const auto region = FindPage(frame); !region.ok()) return region.status();
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> GuestMemory::Pieces(std::span<const uint64_t> page_frames,
                                           uint64_t byte_offset, uint64_t byte_count,
                                           std::span<iovec> pieces) const {
  size_t count = 0;
  for (const uint64_t frame : page_frames) {
    if (byte_count == 0) break;
    const absl::StatusOr<Region*> region = FindPage(frame);
    if (!region.ok()) return region.status();
    std::byte* const start = PageOf(**region, frame) + byte_offset;
    const uint64_t bytes = std::min(byte_count, kPageBytes - byte_offset);
    byte_offset = 0;
    byte_count -= bytes;
    if (count > 0 &&
        static_cast<std::byte*>(pieces[count - 1].iov_base) + pieces[count - 1].iov_len == start) {
      pieces[count - 1].iov_len += bytes;
    } else {
      pieces[count++] = {start, bytes};
    }
  }
  return count;
}

absl::StatusOr<GuestRun> GuestMemory::MapRange(uint64_t gpa, uint64_t bytes) const {
  const absl::StatusOr<Region*> region = Find(gpa);
  if (!region.ok()) return region.status();
  if (bytes > (*region)->gpa_end() - gpa) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " bytes at ", Hex(gpa), " do not lie within one memory region"));
  }
  const std::shared_ptr<const MappedRegion>& mapping = (*region)->mapping;
  return GuestRun{mapping, mapping->data() + (gpa - (*region)->description.gpa), bytes};
}

bool GuestMemory::RegionHoldsAny(uint32_t id, std::span<const uint64_t> page_frames) const {
  const auto found = std::find_if(by_gpa_.begin(), by_gpa_.end(), [id](const auto& entry) {
    return entry.second->description.id == id;
  });
  if (found == by_gpa_.end()) return false;
  const MemoryRegionDescription& region = found->second->description;
  return std::any_of(page_frames.begin(), page_frames.end(), [&](uint64_t frame) {
    return frame >= region.gpa / kPageBytes && frame < found->second->gpa_end() / kPageBytes;
  });
}

absl::Status GuestMemory::CheckVanished(const VanishedMemoryWatch& watch) const {
  if (!watch.vanished()) return absl::OkStatus();
  std::string first;
  size_t regions = 0;
  for (const auto& [gpa, region] : by_gpa_) {
    const uintptr_t start = region->mapping->start();
    const uintptr_t missed = watch.MissedIn(start, region->description.bytes);
    const bool missed_in_parts = missed == 0 && region->MissedInParts(watch);
    if (missed == 0 && !missed_in_parts) continue;
    region->vanished = true;
    if (++regions > 1) continue;
    first =
        absl::StrCat(missed_in_parts ? "a page of a ring"
                                     : absl::StrCat("address ", Hex(gpa + (missed - start))),
                     " of memory region ", region->description.id, " cannot be accessed any more");
  }
  if (regions == 0) {
    return absl::FailedPreconditionError("guest memory vanished in a region that was removed");
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "guest memory vanished: ", first,
      regions > 1 ? absl::StrCat(", nor can parts of ", regions - 1, " other regions") : ""));
}

}  // namespace vmbfs::hyperv
