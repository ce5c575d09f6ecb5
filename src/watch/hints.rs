//! Hints from the operating system that something happened below a directory.
//!
//! A hint names a path, or only says "look". Losing one delays a point until the next poll and loses nothing; where
//! notifications do not work at all (network file systems, too many directories), there are simply no hints.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::event::CreateKind;
use notify::{EventKind, RecursiveMode, Watcher};
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

/// Hints about the paths they were asked for.
#[derive(Debug)]
pub struct Hints {
    watcher: Option<notify::RecommendedWatcher>,
    /// The paths that hints are given about.
    about: BTreeSet<PathBuf>,
    paths: mpsc::UnboundedReceiver<PathBuf>,
}

impl Hints {
    /// Hints about nothing yet. `wanted` is asked about each path that something happened to, and told whether it is a
    /// new directory. Never fails: without notifications there are no hints.
    pub fn new(wanted: impl Fn(&Path, bool) -> bool + Send + 'static) -> Self {
        let (sender, paths) = mpsc::unbounded_channel();
        let handler = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            let is_new_directory = matches!(event.kind, EventKind::Create(CreateKind::Folder));
            for path in event.paths.into_iter().filter(|path| wanted(path, is_new_directory)) {
                // Nobody listens any more while the program ends.
                let _ = sender.send(path);
            }
        };
        let watcher = notify::recommended_watcher(handler);
        if let Err(error) = &watcher {
            tracing::debug!(%error, "no notifications; polling only");
        }
        Self { watcher: watcher.ok(), about: BTreeSet::new(), paths }
    }

    /// Gives hints about everything below these paths, which exist, and no other. One that has gone and come again is to
    /// be left out once, since its notifications ended with it.
    pub fn only_about(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        self.about.retain(|known| {
            let stays = paths.contains(known);
            if !stays {
                // It is gone, and its notifications with it.
                let _ = watcher.unwatch(&real(known));
            }
            stays
        });
        for path in paths {
            // A path that cannot be watched is not tried again at each look.
            if !is_remote(path)
                && self.about.insert(path.clone())
                && let Err(error) = watcher.watch(&real(path), RecursiveMode::Recursive)
            {
                tracing::debug!(path = %path.display(), %error, "no notifications; polling only");
            }
        }
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

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
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
