// Errors on their way to a caller and back: absl::Status with a reason on our
// side, a gRPC status with google.rpc details on the wire.

#pragma once

#include <grpcpp/support/status.h>

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"

namespace vmbfs::rpc {

inline constexpr std::string_view kErrorDomain = "vmbfs";

// The server has as many calls waiting as it takes; told with a RetryInfo.
inline constexpr std::string_view kBusyReason = "SERVER_BUSY";
absl::Status BusyError();

// Status and details travel in one block of metadata, which clients limit.
inline constexpr size_t kMessageBytesMax = 1024;
inline constexpr size_t kResourceBytesMax = 256;

// kInvalidArgument about one field of a request, a path as
// "attachment.file.blob".
absl::Status FieldError(std::string_view field, std::string_view reason, std::string_view message);

// Names the field in an error that is kInvalidArgument and names none.
absl::Status AboutField(absl::Status status, std::string_view field);

// Names what an error is about, where a call is about several things; the first
// name stays.
absl::Status AboutResource(absl::Status status, std::string_view resource);

// The gRPC status with one ErrorInfo (the reason that `status` carries, or the
// name of its code; `resource` in its metadata, unless `status` names another) and, where they fit,
// BadRequest, PreconditionFailure, QuotaFailure or RetryInfo.
::grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view resource);

// The other way round; the reason is kept, and empty where the peer gave none.
absl::Status FromGrpcStatus(const ::grpc::Status& status);

}  // namespace vmbfs::rpc
