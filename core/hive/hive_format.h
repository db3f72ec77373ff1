// The bytes of a registry hive file (regf, primary file), and nothing else.
//
// Format: README.md, shared/specs/imc.md section 2. All integers are
// little-endian. A base block, then bins; a bin is tiled by cells; a record lies
// in a cell, behind the cell's size. An offset counts from the end of the base
// block; kNoCell stands for none.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hive {

using U8 = boost::endian::little_uint8_buf_t;
using U16 = boost::endian::little_uint16_buf_t;
using U32 = boost::endian::little_uint32_buf_t;
using U64 = boost::endian::little_uint64_buf_t;

inline constexpr size_t kBaseBlockBytes = 4096;
inline constexpr size_t kBinUnitBytes = 4096;  // bins are multiples of it
inline constexpr size_t kCellUnitBytes = 8;    // cells are multiples of it
inline constexpr size_t kCellHeaderBytes = 4;  // a signed size; negative: in use
inline constexpr uint32_t kNoCell = 0xFFFFFFFF;
inline constexpr uint64_t kBinsBytesMax = 0x7FFFF000;  // the top bit of an offset means "volatile"

inline constexpr uint32_t kVersionMajor = 1;
inline constexpr uint32_t kVersionMinorMin = 3;
inline constexpr uint32_t kVersionMinorMax = 6;
inline constexpr uint32_t kVersionMinorBigData = 4;  // from here on
inline constexpr uint32_t kVersionMinorWritten = 5;  // `lh` lists and big data

inline constexpr size_t kChecksummedBytes = 508;

struct BaseBlock {
  U8 signature[4];  // "regf"
  U32 primary_sequence;
  U32 secondary_sequence;  // unlike the primary: a log has to be replayed
  U64 last_written;        // FILETIME
  U32 major;
  U32 minor;
  U32 file_type;  // 0: primary
  U32 format;     // 1
  U32 root_offset;
  U32 bins_bytes;
  U32 clustering_factor;  // 1
  U16 file_name[32];
  U8 identities_and_flags[64];
  U8 writer_mark[4];  // "OfRg": made by the Offline Registry library
  U32 writer_mark_version;
  U8 reserved[324];
  U32 checksum;    // over the words before it
  U64 serialised;  // FILETIME, of the Offline Registry library
  U8 reserved_to_the_end[3576];
};
static_assert(sizeof(BaseBlock) == kBaseBlockBytes && alignof(BaseBlock) == 1);
static_assert(offsetof(BaseBlock, primary_sequence) == 4);
static_assert(offsetof(BaseBlock, secondary_sequence) == 8);
static_assert(offsetof(BaseBlock, last_written) == 12 && offsetof(BaseBlock, major) == 20);
static_assert(offsetof(BaseBlock, minor) == 24 && offsetof(BaseBlock, file_type) == 28);
static_assert(offsetof(BaseBlock, format) == 32 && offsetof(BaseBlock, root_offset) == 36);
static_assert(offsetof(BaseBlock, bins_bytes) == 40);
static_assert(offsetof(BaseBlock, clustering_factor) == 44);
static_assert(offsetof(BaseBlock, file_name) == 48);
static_assert(offsetof(BaseBlock, identities_and_flags) == 112);
static_assert(offsetof(BaseBlock, writer_mark) == 176);
static_assert(offsetof(BaseBlock, writer_mark_version) == 180);
static_assert(offsetof(BaseBlock, checksum) == kChecksummedBytes);
static_assert(offsetof(BaseBlock, serialised) == 512);

struct BinHeader {
  U8 signature[4];  // "hbin"
  U32 offset;       // of this bin
  U32 bytes;        // of this bin, with the header
  U8 reserved[8];
  U64 last_written;  // FILETIME, of the first bin
  U32 spare;
};
static_assert(sizeof(BinHeader) == 32 && alignof(BinHeader) == 1);
static_assert(offsetof(BinHeader, offset) == 4 && offsetof(BinHeader, bytes) == 8);
static_assert(offsetof(BinHeader, last_written) == 20 && offsetof(BinHeader, spare) == 28);

inline constexpr uint32_t kRootOffset = sizeof(BinHeader);

// Two characters, as they lie in a file.
constexpr uint16_t Signature(char first, char second) {
  return static_cast<uint16_t>(static_cast<uint8_t>(first) | (static_cast<uint8_t>(second) << 8));
}
inline constexpr uint16_t kKeySignature = Signature('n', 'k');
inline constexpr uint16_t kValueSignature = Signature('v', 'k');
inline constexpr uint16_t kSecuritySignature = Signature('s', 'k');
inline constexpr uint16_t kBigDataSignature = Signature('d', 'b');
inline constexpr uint16_t kHashLeafSignature = Signature('l', 'h');   // {offset, hash}
inline constexpr uint16_t kFastLeafSignature = Signature('l', 'f');   // {offset, 4 characters}
inline constexpr uint16_t kIndexLeafSignature = Signature('l', 'i');  // {offset}
inline constexpr uint16_t kIndexRootSignature = Signature('r', 'i');  // {offset of a leaf}

inline constexpr uint16_t kKeyHiveRoot = 0x04;
inline constexpr uint16_t kKeyNoDelete = 0x08;
inline constexpr uint16_t kKeyNameIsLatin1 = 0x20;
inline constexpr size_t kKeyCellBytesMax = 0x45C;

// A key; its name follows.
struct KeyRecord {
  U16 signature;
  U16 flags;
  U64 last_written;  // FILETIME
  U32 access_bits;
  U32 parent_offset;
  U32 subkey_count;
  U32 volatile_subkey_count;
  U32 subkey_list_offset;
  U32 volatile_subkey_list_offset;
  U32 value_count;
  U32 value_list_offset;
  U32 security_offset;
  U32 class_offset;
  U16 subkey_name_bytes_max;  // as UTF-16; likewise below
  U8 user_flags;
  U8 debug;
  U32 subkey_class_bytes_max;
  U32 value_name_bytes_max;
  U32 value_data_bytes_max;
  U32 work_variable;
  U16 name_bytes;  // as stored
  U16 class_bytes;
};
static_assert(sizeof(KeyRecord) == 76 && alignof(KeyRecord) == 1);
static_assert(offsetof(KeyRecord, flags) == 2 && offsetof(KeyRecord, last_written) == 4);
static_assert(offsetof(KeyRecord, access_bits) == 12 && offsetof(KeyRecord, parent_offset) == 16);
static_assert(offsetof(KeyRecord, subkey_count) == 20);
static_assert(offsetof(KeyRecord, volatile_subkey_count) == 24);
static_assert(offsetof(KeyRecord, subkey_list_offset) == 28);
static_assert(offsetof(KeyRecord, volatile_subkey_list_offset) == 32);
static_assert(offsetof(KeyRecord, value_count) == 36);
static_assert(offsetof(KeyRecord, value_list_offset) == 40);
static_assert(offsetof(KeyRecord, security_offset) == 44 &&
              offsetof(KeyRecord, class_offset) == 48);
static_assert(offsetof(KeyRecord, subkey_name_bytes_max) == 52);
static_assert(offsetof(KeyRecord, user_flags) == 54 && offsetof(KeyRecord, debug) == 55);
static_assert(offsetof(KeyRecord, subkey_class_bytes_max) == 56);
static_assert(offsetof(KeyRecord, value_name_bytes_max) == 60);
static_assert(offsetof(KeyRecord, value_data_bytes_max) == 64);
static_assert(offsetof(KeyRecord, work_variable) == 68 && offsetof(KeyRecord, name_bytes) == 72);
static_assert(offsetof(KeyRecord, class_bytes) == 74);

inline constexpr uint16_t kValueNameIsLatin1 = 0x01;
inline constexpr uint32_t kDataInline = 0x80000000;  // up to 4 bytes lie in data_offset
inline constexpr size_t kInlineDataBytesMax = 4;

// A value; its name follows (none: the key's default value).
struct ValueRecord {
  U16 signature;
  U16 name_bytes;  // as stored
  U32 data_bytes;  // or kDataInline | bytes
  U32 data_offset;
  U32 type;
  U16 flags;
  U16 spare;
};
static_assert(sizeof(ValueRecord) == 20 && alignof(ValueRecord) == 1);
static_assert(offsetof(ValueRecord, name_bytes) == 2 && offsetof(ValueRecord, data_bytes) == 4);
static_assert(offsetof(ValueRecord, data_offset) == 8 && offsetof(ValueRecord, type) == 12);
static_assert(offsetof(ValueRecord, flags) == 16 && offsetof(ValueRecord, spare) == 18);

// A list of subkeys, or of such lists; its elements follow.
struct ListHeader {
  U16 signature;
  U16 count;
};
static_assert(sizeof(ListHeader) == 4 && alignof(ListHeader) == 1);
static_assert(offsetof(ListHeader, count) == 2);

struct HashLeafElement {  // of `lh` and `lf`
  U32 key_offset;
  U32 hash;
};
static_assert(sizeof(HashLeafElement) == 8 && alignof(HashLeafElement) == 1);
static_assert(offsetof(HashLeafElement, hash) == 4);

// What fits a cell of a smallest bin.
inline constexpr size_t kHashLeafElementsMax = 507;

// Data above kPlainDataBytesMax; its segments all hold that much, but for the
// last. The list is the segments' offsets.
inline constexpr size_t kPlainDataBytesMax = 16344;
// A full segment's cell has 4 bytes more, by rounding. Libhivex and libregf leave
// the last 4 bytes out of any segment, so each is written with as many to spare.
inline constexpr size_t kSegmentSpareBytes = 4;
struct BigDataRecord {
  U16 signature;
  U16 segment_count;
  U32 list_offset;
};
static_assert(sizeof(BigDataRecord) == 8 && alignof(BigDataRecord) == 1);
static_assert(offsetof(BigDataRecord, segment_count) == 2);
static_assert(offsetof(BigDataRecord, list_offset) == 4);

// A security descriptor that keys share; it follows, self-relative. All of a
// hive form one circle.
struct SecurityRecord {
  U16 signature;
  U16 reserved;
  U32 next_offset;
  U32 previous_offset;
  U32 reference_count;  // keys
  U32 descriptor_bytes;
};
static_assert(sizeof(SecurityRecord) == 20 && alignof(SecurityRecord) == 1);
static_assert(offsetof(SecurityRecord, next_offset) == 4);
static_assert(offsetof(SecurityRecord, previous_offset) == 8);
static_assert(offsetof(SecurityRecord, reference_count) == 12);
static_assert(offsetof(SecurityRecord, descriptor_bytes) == 16);

}  // namespace vmbfs::hive
