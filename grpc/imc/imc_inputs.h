// What calls about hives are given, with what they name read from the blobs.
//
// Trust: names and bytes are a caller's.

#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/imc_build.h"
#include "core/host/host.h"
#include "vmbfs/v1/imc.pb.h"

namespace vmbfs::rpc {

inline constexpr int kInputsMax = 64;
inline constexpr uint64_t kInputsBytesMax = uint64_t{64} << 20;  // together
inline constexpr size_t kInputNameBytesMax = 1024;

// The hive that the inputs make. Waits for the disk.
// Errors: kInvalidArgument ("INPUTS_INVALID" for their number, names and
// sources, "SEQUENCE_INVALID", "IMC_INPUT_INVALID" for what they hold),
// kNotFound, kResourceExhausted ("IMC_TOO_LARGE"), kInternal.
absl::StatusOr<hive::ImcBuild> BuildFrom(
    Host& host, const google::protobuf::RepeatedPtrField<v1::ImcInput>& inputs,
    const v1::ImcOptions& options);

// The bytes of a hive. Waits for the disk.
// Errors: kInvalidArgument that names `field`, kNotFound, kResourceExhausted
// ("IMC_TOO_LARGE"), kInternal.
absl::StatusOr<std::vector<std::byte>> ReadHiveSource(Host& host, const v1::HiveSource& source,
                                                      std::string_view field);

}  // namespace vmbfs::rpc
