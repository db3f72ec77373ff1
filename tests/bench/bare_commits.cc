#include "tests/bench/bare_commits.h"

#include "absl/strings/str_cat.h"

namespace vmbfs::bench {
namespace {

constexpr char kSetUp[] = R"sql(
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE attachments (
    vm             TEXT NOT NULL,
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
constexpr char kInsert[] =
    "INSERT INTO attachments VALUES ('caller0', 'boot', 'blob', "
    "'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9', 65536, 'bench.bin', "
    "1700000000000000, 1700000000000000, 1)";
constexpr char kDelete[] = "DELETE FROM attachments WHERE vm = 'caller0' AND device = 'boot'";

}  // namespace

absl::StatusOr<std::unique_ptr<BareCommits>> BareCommits::Make(const std::string& file) {
  std::unique_ptr<BareCommits> commits(new BareCommits());
  sqlite3* database = nullptr;
  const int opened = sqlite3_open(file.c_str(), &database);
  commits->database_.reset(database);
  absl::Status status = opened == SQLITE_OK ? commits->SetUp() : commits->Error();
  if (!status.ok()) return status;
  return commits;
}

absl::Status BareCommits::SetUp() {
  sqlite3* database = database_.get();
  if (sqlite3_exec(database, kSetUp, nullptr, nullptr, nullptr) != SQLITE_OK) return Error();
  const auto prepare = [database](const char* sql) {
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(database, sql, -1, &statement, nullptr);
    return statement;
  };
  insert_.reset(prepare(kInsert));
  delete_.reset(prepare(kDelete));
  return insert_ != nullptr && delete_ != nullptr ? absl::OkStatus() : Error();
}

absl::Status BareCommits::Commit() {
  sqlite3_stmt* statement = inserted_ ? delete_.get() : insert_.get();
  const int done = sqlite3_step(statement);
  sqlite3_reset(statement);
  if (done != SQLITE_DONE) return Error();
  inserted_ = !inserted_;
  return absl::OkStatus();
}

absl::Status BareCommits::Error() const {
  return absl::InternalError(absl::StrCat("SQLite: ", sqlite3_errmsg(database_.get())));
}

}  // namespace vmbfs::bench
