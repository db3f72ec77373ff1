// The version of every program of this project.

#pragma once

namespace vmbfs {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace vmbfs
