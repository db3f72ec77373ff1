#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/mutex/mutex.h"
#include "core/state/row_parser.h"
#include "core/state/schema.h"
#include "core/state/sqlite_database.h"
#include "core/state/state_directory.h"
#include "core/state/state_store.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;

using state::Database;
using state::Statement;
using state::Transaction;

// Makes the tables, or brings those of an earlier version up to ours, all or not
// at all.
absl::Status SetUpSchema(Database& database, const fs::path& file) {
  Transaction transaction(database);
  if (!transaction.begun().ok()) return transaction.begun();
  int64_t version = 0;
  {
    Statement statement = database.Prepare("PRAGMA user_version");
    const auto row = statement.Step();
    if (!row.ok()) return row.status();
    version = statement.Integer(0).value_or(0);
  }
  if (version == state::kSchemaVersion) return absl::OkStatus();
  if (version < 0 || version > state::kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        file.string(), " has schema version ", version, "; this program knows version ",
        state::kSchemaVersion, ". Use the program that wrote it, or a later one"));
  }
  for (int64_t step = version; step < state::kSchemaVersion; ++step) {
    if (absl::Status status = database.Run(state::kSchemaSteps[step]); !status.ok()) return status;
  }
  const std::string mark = absl::StrCat("PRAGMA user_version = ", state::kSchemaVersion);
  if (absl::Status status = database.Run(mark.c_str()); !status.ok()) return status;
  return transaction.Commit();
}

// All rows of a query, parsed.
template <typename Record>
absl::Status Collect(Statement statement, absl::StatusOr<Record> (*parse)(const Statement&),
                     std::vector<Record>& records) {
  while (true) {
    const auto row = statement.Step();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    auto record = parse(statement);
    if (!record.ok()) return record.status();
    records.push_back(*std::move(record));
  }
}

// Runs a statement that changes one row. kNotFound with `missing` if none was.
absl::Status ChangeOne(Database& database, Statement& statement, const std::string& missing) {
  const auto row = statement.Step();
  if (!row.ok()) return row.status();
  return database.changes() > 0 ? absl::OkStatus() : absl::NotFoundError(missing);
}

absl::StatusOr<int64_t> NextRevision(Database& database) {
  Statement statement =
      database.Prepare("UPDATE revisions SET last = last + 1 WHERE id = 1 RETURNING last");
  const auto row = statement.Step();
  if (!row.ok()) return row.status();
  const auto revision = *row ? statement.Integer(0) : std::nullopt;
  if (!revision.has_value() || *revision < 1) return state::BadRow("revisions", "1", "last");
  if (const auto end = statement.Step(); !end.ok()) return end.status();
  return *revision;
}

class SqliteStateStore final : public StateStore {
 public:
  SqliteStateStore(hyperv::UniqueFd lock, std::unique_ptr<Database> database)
      : lock_(std::move(lock)), database_(std::move(database)) {}

  absl::StatusOr<Contents> Load() override {
    MutexLock lock(mutex_);
    Contents contents;
    if (absl::Status status =
            Collect(database_->Prepare("SELECT name, owner_uid, create_time_us, revision, "
                                       "allow_unsealed_memory, monitored FROM vms ORDER BY name"),
                    &state::ParseVm, contents.vms);
        !status.ok()) {
      return status;
    }
    if (absl::Status status =
            Collect(database_->Prepare("SELECT vm, device, source_kind, sha256, size_bytes, "
                                       "file_name, create_time_us, update_time_us, revision "
                                       "FROM attachments ORDER BY vm, device"),
                    &state::ParseAttachment, contents.attachments);
        !status.ok()) {
      return status;
    }
    return contents;
  }

  absl::StatusOr<uint64_t> InsertVm(const VmRecord& vm) override {
    return Change([&vm](Database& database, int64_t revision) {
      Statement statement = database.Prepare(
          "INSERT INTO vms (name, owner_uid, create_time_us, revision, allow_unsealed_memory, "
          "monitored) VALUES (?, ?, ?, ?, ?, ?)");
      const auto owner =
          vm.owner_uid.has_value() ? std::optional<int64_t>(*vm.owner_uid) : std::nullopt;
      statement.Bind(vm.name)
          .Bind(owner)
          .Bind(vm.create_time_us)
          .Bind(revision)
          .Bind(int64_t{vm.allow_unsealed_memory})
          .Bind(int64_t{vm.monitored});
      return ChangeOne(database, statement, "nothing was stored");
    });
  }

  absl::Status DeleteVm(std::string_view name) override {
    return Change([name](Database& database, int64_t) {
             Statement statement = database.Prepare("DELETE FROM vms WHERE name = ?");
             statement.Bind(name);
             return ChangeOne(database, statement, "no such VM");
           })
        .status();
  }

  absl::StatusOr<uint64_t> InsertAttachment(const AttachmentRecord& attachment) override {
    return Change([&attachment](Database& database, int64_t revision) {
      Statement statement = database.Prepare(
          "INSERT INTO attachments (vm, device, source_kind, sha256, size_bytes, file_name, "
          "create_time_us, update_time_us, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
      statement.Bind(attachment.vm)
          .Bind(attachment.device)
          .Bind(attachment.source_kind)
          .Bind(attachment.sha256)
          .Bind(static_cast<int64_t>(attachment.size_bytes))
          .Bind(attachment.file_name)
          .Bind(attachment.create_time_us)
          .Bind(attachment.update_time_us)
          .Bind(revision);
      absl::Status status = ChangeOne(database, statement, "nothing was stored");
      return status.ok() ? TouchVm(database, attachment.vm, revision) : status;
    });
  }

  absl::StatusOr<uint64_t> UpdateAttachment(const AttachmentRecord& attachment) override {
    return Change([&attachment](Database& database, int64_t revision) {
      Statement statement = database.Prepare(
          "UPDATE attachments SET source_kind = ?, sha256 = ?, size_bytes = ?, file_name = ?, "
          "update_time_us = ?, revision = ? WHERE vm = ? AND device = ?");
      statement.Bind(attachment.source_kind)
          .Bind(attachment.sha256)
          .Bind(static_cast<int64_t>(attachment.size_bytes))
          .Bind(attachment.file_name)
          .Bind(attachment.update_time_us)
          .Bind(revision)
          .Bind(attachment.vm)
          .Bind(attachment.device);
      absl::Status status = ChangeOne(database, statement, "no such attachment");
      return status.ok() ? TouchVm(database, attachment.vm, revision) : status;
    });
  }

  absl::StatusOr<uint64_t> DeleteAttachment(std::string_view vm, std::string_view device) override {
    return Change([vm, device](Database& database, int64_t revision) {
      Statement statement = database.Prepare("DELETE FROM attachments WHERE vm = ? AND device = ?");
      statement.Bind(vm).Bind(device);
      absl::Status status = ChangeOne(database, statement, "no such attachment");
      return status.ok() ? TouchVm(database, vm, revision) : status;
    });
  }

 private:
  static absl::Status TouchVm(Database& database, std::string_view vm, int64_t revision) {
    Statement statement = database.Prepare("UPDATE vms SET revision = ? WHERE name = ?");
    statement.Bind(revision).Bind(vm);
    return ChangeOne(database, statement, "no such VM");
  }

  // One transaction: the next revision, and what `change` does with it.
  template <typename Function>
  absl::StatusOr<uint64_t> Change(Function change) VMBFS_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Transaction transaction(*database_);
    if (!transaction.begun().ok()) return transaction.begun();
    const auto revision = NextRevision(*database_);
    if (!revision.ok()) return revision.status();
    if (absl::Status status = change(*database_, *revision); !status.ok()) return status;
    if (absl::Status status = transaction.Commit(); !status.ok()) return status;
    return static_cast<uint64_t>(*revision);
  }

  const hyperv::UniqueFd lock_;  // released after the database is closed
  Mutex mutex_;
  const std::unique_ptr<Database> database_ VMBFS_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<StateStore>> OpenStateStore(const fs::path& folder) {
  if (absl::Status status = state::MakeStateDirectory(folder); !status.ok()) return status;
  auto lock = state::LockStateDirectory(folder);
  if (!lock.ok()) return lock.status();
  const fs::path file = folder / "state.db";
  auto database = Database::Open(file);
  if (!database.ok()) return database.status();
  if (absl::Status status = SetUpSchema(**database, file); !status.ok()) return status;
  // The database's own name must survive power loss too.
  if (absl::Status status = state::SyncFolder(folder); !status.ok()) return status;
  return std::make_unique<SqliteStateStore>(*std::move(lock), *std::move(database));
}

}  // namespace vmbfs
