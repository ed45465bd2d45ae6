//! Notices when a command changes the tokens or the certificate of a running coordinator.
//!
//! Commands write the files and need no coordinator to talk to, so the coordinator looks: at what the
//! file system says of two files, twice a second. Only what changed is read.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::keys::Keys;
use super::tls::Tls;
use super::tokens::TokenFile;

/// The time from one look to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// What changes whenever a file is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode })
}

/// Looks until `shutdown`. What cannot be read leaves everything as it was, and is tried again when
/// the file changes. Cancels `closed` when calls come to need a token that needed none before.
pub(crate) async fn watch(
    tokens: TokenFile,
    keys: Arc<Keys>,
    tls: Option<Arc<Tls>>,
    closed: CancellationToken,
    shutdown: CancellationToken,
) {
    let mut seen_tokens = stamp(tokens.path());
    // Between the first reading and this look a command may have written.
    take_over(&tokens, &keys, &closed);
    let mut seen_certificate =
        tls.as_ref().map(|tls| (stamp(&tls.files().certificate), stamp(&tls.files().key)));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let now = stamp(tokens.path());
        if now != seen_tokens {
            seen_tokens = now;
            take_over(&tokens, &keys, &closed);
        }
        if let Some(tls) = &tls {
            let now = Some((stamp(&tls.files().certificate), stamp(&tls.files().key)));
            if now != seen_certificate {
                seen_certificate = now;
                match tls.reload() {
                    Ok(()) => info!("new connections get the new certificate"),
                    Err(error) => error!(%error, "the new certificate is not used"),
                }
            }
        }
    }
}

fn take_over(tokens: &TokenFile, keys: &Keys, closed: &CancellationToken) {
    let was_open = !keys.are_needed();
    match tokens.read() {
        // No file before there ever was one.
        Ok(None) if !keys.are_needed() => {}
        Ok(entries) => {
            for name in keys.replace(entries) {
                info!(token = %name, "token revoked");
            }
        }
        Err(error) => error!(%error, "the tokens stay as they were"),
    }
    if was_open && keys.are_needed() {
        warn!("calls need a token from now on: there was none before");
        closed.cancel();
    }
}
