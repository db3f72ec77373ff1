// Messages of the API as lines for people.
//
// Trust: names and values may come from guests; nothing that a terminal would
// act on is let through.

#pragma once

#include <string>

#include "vmbfs/v1/attachment.pb.h"
#include "vmbfs/v1/inspect.pb.h"
#include "vmbfs/v1/vm.pb.h"

namespace vmbfs::ctl {

// `text` as it is, unless it holds control characters (of ASCII, or of Latin-1
// as UTF-8 writes them): then escaped.
std::string Printable(const std::string& text);

std::string TextOf(const v1::Vm& vm);
std::string TextOf(const v1::ListVmsResponse& vms);
std::string TextOf(const v1::Attachment& attachment);
std::string TextOf(const v1::Node& node);

}  // namespace vmbfs::ctl
