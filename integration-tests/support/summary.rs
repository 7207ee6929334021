//! Which tests used which server, and what happens to a test whose server cannot be had.
//!
//! Lines go to `target/integration-summary.txt`, from which `make test` prints its closing line. libtest swallows what
//! a passing test prints, so announcements are written to standard error directly.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Says something a reader of the run should see even when every test passes.
pub fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Records that `test` used `server` of `version`.
pub fn used(server: &str, version: &str, test: &str) {
    append(&format!("{server}\t{version}\t{test}\n"));
}

/// A server that cannot be had fails the test, unless `MODERATO_TEST_ALLOW_MISSING=1`: then it is skipped by name.
pub fn missing(why: &str, test: &str) {
    let allowed = std::env::var("MODERATO_TEST_ALLOW_MISSING").is_ok_and(|value| value == "1");
    assert!(allowed, "{why}\n(MODERATO_TEST_ALLOW_MISSING=1 skips the tests that need it)");
    skipped(why.lines().next().unwrap_or(why), test);
}

/// A test that this machine or user cannot run, whatever is installed: it says so by name.
pub fn skipped(why: &str, test: &str) {
    announce(&format!("SKIPPED {test}: {why}"));
    append(&format!("skipped\t-\t{test}\n"));
}

fn append(line: &str) {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let path = FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("integration-summary.txt");
        let _ = std::fs::remove_file(&path);
        path
    });
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("target/ can be written");
    // One write a line: tests on several threads do not mix theirs.
    file.write_all(line.as_bytes()).expect("target/ can be written");
}
