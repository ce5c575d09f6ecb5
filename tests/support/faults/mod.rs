//! A disk under the program that dies, fills up, breaks or loses power at an operation of the test's choice.
//!
//! A small library is put between the program and the C library; the program itself knows nothing of it. It counts what is
//! done below one directory, and keeps a trace from which [`power`] makes what a disk would hold after a loss of power.

pub mod chance;
pub mod power;
pub mod share;
mod trace;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub use chance::Chance;
pub use power::Image;
pub use share::Share;

/// Where the library is put. Examples share this file, and have no such place.
const PLACE: Option<&str> = option_env!("CARGO_TARGET_TMPDIR");

/// What happens to the disk, by the number of an operation, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: operations are traced.
    Trace,
    /// The process dies instead of this operation.
    Before(u64),
    /// The process dies when half of what this operation writes is written, or right after it.
    Within(u64),
    /// From this operation on there is no space: a write is short once, and whatever needs space fails.
    Full(u64),
    /// This operation fails, with an I/O error.
    Broken(u64),
}

/// The directory whose operations count, and the trace of one process.
pub struct Disk {
    under: PathBuf,
    slow: Duration,
    trace: tempfile::NamedTempFile,
}

impl Disk {
    /// Operations below `under` count. It need not be there yet.
    pub fn new(under: &Path) -> Self {
        let parent = under.parent().unwrap().canonicalize().unwrap();
        Self {
            under: parent.join(under.file_name().unwrap()),
            slow: Duration::ZERO,
            trace: tempfile::NamedTempFile::new().unwrap(),
        }
    }

    /// Making something last takes so long: time for others to do what they should not do yet.
    pub fn slow(mut self, slow: Duration) -> Self {
        self.slow = slow;
        self
    }

    /// The variables that put a process on this disk.
    pub fn variables(&self, plan: Plan) -> Vec<(&'static str, OsString)> {
        let plan = match plan {
            Plan::Trace => String::new(),
            Plan::Before(number) => format!("before={number}"),
            Plan::Within(number) => format!("within={number}"),
            Plan::Full(number) => format!("full={number}"),
            Plan::Broken(number) => format!("fail={number}"),
        };
        vec![
            ("LD_PRELOAD", library().into()),
            ("DISK_UNDER", self.under.clone().into()),
            ("DISK_TRACE", self.trace.path().into()),
            ("DISK_PLAN", format!("{plan},slow={}", self.slow.as_micros()).into()),
        ]
    }

    /// What lies below now; all of it is taken to be durable.
    pub fn image(&self) -> Image {
        Image::of(&self.under)
    }

    /// Does to an image what the trace says, tells how many operations that were, and forgets the trace.
    pub fn apply(&self, image: &mut Image) -> usize {
        let bytes = fs::read(self.trace.path()).unwrap();
        fs::write(self.trace.path(), "").unwrap();
        let operations = trace::parse(&bytes);
        operations.iter().for_each(|operation| image.apply(operation));
        operations.len()
    }

    /// The names of the operations of the trace, one a line.
    pub fn tell(&self) -> String {
        let bytes = fs::read(self.trace.path()).unwrap();
        let lines = trace::parse(&bytes).into_iter().enumerate();
        lines.map(|(index, operation)| format!("{}: {operation}\n", index + 1)).collect()
    }
}

/// The library, compiled once a process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("disk"))
}

/// Compiles a library of this directory.
fn compile(name: &str) -> PathBuf {
    let place = Path::new(PLACE.unwrap());
    fs::create_dir_all(place).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/faults/{name}.c"));
    // Another process may be at it too.
    let (fresh, library) = (place.join(format!("{name}.{}", std::process::id())), place.join(format!("{name}.so")));
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compile = Command::new(&cc);
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(&source).arg("-ldl");
    let ended = compile.status().unwrap_or_else(|error| panic!("cannot start the C compiler {cc:?}: {error}"));
    assert!(ended.success(), "{} cannot be compiled", source.display());
    fs::rename(fresh, &library).unwrap();
    library
}
