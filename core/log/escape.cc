#include "core/log/escape.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmbfs::log {

std::string Escape(std::string_view bytes, size_t bytes_max) {
  const size_t shown = std::min(bytes.size(), bytes_max);
  std::string text = absl::CHexEscape(absl::string_view(bytes.data(), shown));
  if (shown < bytes.size()) absl::StrAppend(&text, "... (", bytes.size() - shown, " more bytes)");
  return text;
}

}  // namespace vmbfs::log
