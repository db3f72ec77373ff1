#include "grpc/vms/page_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grpc/convert/status.h"

namespace vmbfs::rpc {
namespace {

// Tells a token of this form from those of another version.
constexpr char kForm[] = "after:";

}  // namespace

std::string MakePageToken(const std::string& after) {
  return after.empty() ? std::string() : absl::WebSafeBase64Escape(absl::StrCat(kForm, after));
}

absl::StatusOr<std::string> ParsePageToken(const std::string& token) {
  if (token.empty()) return std::string();
  std::string text;
  if (!absl::WebSafeBase64Unescape(token, &text)) text.clear();
  absl::string_view after = text;
  if (!absl::ConsumePrefix(&after, kForm) || after.empty()) {
    return FieldError("page_token", "PAGE_TOKEN_INVALID",
                      "page_token is not one that a list returned: leave it out to begin anew");
  }
  return std::string(after);
}

}  // namespace vmbfs::rpc
