#include "core/path/windows_case.h"

#include <unicode/uchar.h>

#include <algorithm>

namespace vmbfs {

char16_t UpperCaseUnit(char16_t unit) {
  if (unit < 0x80) {
    return unit >= u'a' && unit <= u'z' ? static_cast<char16_t>(unit - u'a' + u'A') : unit;
  }
  const UChar32 upper = u_toupper(unit);
  if (upper > 0xFFFF || u_tolower(upper) != unit) return unit;
  return static_cast<char16_t>(upper);
}

int CompareNames(std::u16string_view a, std::u16string_view b) {
  const size_t shorter = std::min(a.size(), b.size());
  for (size_t i = 0; i < shorter; ++i) {
    if (a[i] == b[i]) continue;
    const int difference = int{UpperCaseUnit(a[i])} - int{UpperCaseUnit(b[i])};
    if (difference != 0) return difference;
  }
  if (a.size() == b.size()) return 0;
  return a.size() < b.size() ? -1 : 1;
}

}  // namespace vmbfs
