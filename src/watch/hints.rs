//! Hints from the operating system that something happened below a directory.
//!
//! A hint names a path, or only says "look". Losing one delays a point until the next poll and loses nothing; where
//! notifications do not work at all (network file systems, too many directories), there are simply no hints.

use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// File systems whose notifications do not tell of other machines' writes, by the magic number of `statfs`.
#[cfg(target_os = "linux")]
const REMOTE: [i64; 9] = [
    0x6969,      // NFS
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x6573_5546, // FUSE
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x00C3_6400, // Ceph
    0x0102_1997, // 9p
];

/// Hints about the directories they were asked for.
#[derive(Debug)]
pub struct Hints {
    // Notifications stop when this is dropped.
    _watcher: Option<notify::RecommendedWatcher>,
    paths: mpsc::UnboundedReceiver<PathBuf>,
}

impl Hints {
    /// Asks for hints about everything below the directories. Never fails: without notifications there are no hints.
    pub fn about(directories: &[PathBuf]) -> Self {
        let (sender, paths) = mpsc::unbounded_channel();
        let handler = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if !event.kind.is_access() {
                for path in event.paths {
                    // Nobody listens any more while the program ends.
                    let _ = sender.send(path);
                }
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            for directory in directories.iter().filter(|directory| !is_remote(directory)) {
                watcher.watch(directory, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::debug!(%error, "no notifications; polling only");
        }
        Self { _watcher: watcher.ok(), paths }
    }

    /// Waits for the next hint, and takes all that wait with it. Waits for ever where there are none.
    pub async fn next(&mut self) -> Vec<PathBuf> {
        let Some(first) = self.paths.recv().await else { return std::future::pending().await };
        let mut paths = vec![first];
        while let Ok(path) = self.paths.try_recv() {
            paths.push(path);
        }
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

/// Whether a directory lies on a network file system, whose changes by other machines are not notified.
pub fn is_remote(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        rustix::fs::statfs(directory).is_ok_and(|file_system| {
            #[allow(
                clippy::useless_conversion,
                clippy::unnecessary_cast,
                reason = "the type differs between architectures"
            )]
            REMOTE.contains(&(file_system.f_type as i64))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}
