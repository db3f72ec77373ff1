// The tables of the state database, and how they came about. Constants only.

#pragma once

#include <iterator>

namespace vmbfs::state {

// STRICT tables hold the types they declare. `revisions` has one row, the last
// revision given; it only rises, also when what had it is gone.
inline constexpr char kCreateTables[] = R"sql(
  CREATE TABLE revisions (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
  ) STRICT;
  INSERT INTO revisions (id, last) VALUES (1, 0);

  CREATE TABLE vms (
    name           TEXT PRIMARY KEY NOT NULL,
    owner_uid      INTEGER,
    create_time_us INTEGER NOT NULL,
    revision       INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE attachments (
    vm             TEXT NOT NULL REFERENCES vms (name) ON DELETE CASCADE,
    device         TEXT NOT NULL,
    source_kind    TEXT NOT NULL,
    sha256         TEXT NOT NULL,
    size_bytes     INTEGER NOT NULL,
    file_name      TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    update_time_us INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    PRIMARY KEY (vm, device)
  ) STRICT, WITHOUT ROWID;
)sql";

inline constexpr char kAddAllowUnsealedMemory[] = R"sql(
  ALTER TABLE vms ADD COLUMN allow_unsealed_memory INTEGER NOT NULL DEFAULT 0;
)sql";

inline constexpr char kAddMonitored[] = R"sql(
  ALTER TABLE vms ADD COLUMN monitored INTEGER NOT NULL DEFAULT 0;
)sql";

// From each version to the next; a new database takes them all. A step that has
// shipped is never changed.
inline constexpr const char* kSchemaSteps[] = {kCreateTables, kAddAllowUnsealedMemory,
                                               kAddMonitored};

// Stored in PRAGMA user_version. A program refuses a database of a later one.
inline constexpr int kSchemaVersion = std::size(kSchemaSteps);

}  // namespace vmbfs::state
