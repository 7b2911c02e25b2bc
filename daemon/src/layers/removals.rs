//! Removing the directories of unfinished layers while nobody waits.

use std::sync::Arc;
use std::thread::Builder;

use kiln_snapshotter::{LayerId, Overlay};
use tokio::sync::watch;

/// Counts the removals that go on.
#[derive(Clone, Default)]
pub(super) struct Removals(Arc<watch::Sender<usize>>);

impl Removals {
    /// Removes a layer's directory on a thread of its own: a big tree takes long. Where there can
    /// be no more threads the caller has to wait after all.
    pub(super) fn start(&self, overlay: Arc<Overlay>, id: LayerId) {
        self.start_on(Builder::new().name("removal".into()), overlay, id);
    }

    fn start_on(&self, thread: Builder, overlay: Arc<Overlay>, id: LayerId) {
        let removal = Removal { overlay, id, _counted: Counted::new(self) };
        if let Err(error) = thread.spawn(move || drop(removal)) {
            // What the thread would have dropped has been dropped here.
            tracing::debug!(layer = %id, %error, "no thread to remove an unfinished layer");
        }
    }

    /// Returns when none goes on.
    pub(super) async fn finished(&self) {
        let _ = self.0.subscribe().wait_for(|&count| count == 0).await;
    }
}

/// A removal, which happens when and where this is dropped.
struct Removal {
    overlay: Arc<Overlay>,
    id: LayerId,
    _counted: Counted,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Err(error) = self.overlay.discard(self.id) {
            tracing::warn!(layer = %self.id, %error, "cannot remove an unfinished layer");
        }
    }
}

/// One removal in the count.
struct Counted(Removals);

impl Counted {
    fn new(removals: &Removals) -> Self {
        removals.0.send_modify(|count| *count += 1);
        Self(removals.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use kiln_snapshotter::Snapshotter as _;

    use super::*;

    #[tokio::test]
    async fn a_layer_is_removed_with_or_without_a_thread() {
        let root = tempfile::tempdir().unwrap();
        let overlay = Arc::new(Overlay::open(root.path()).unwrap());
        let removals = Removals::default();
        let impossible = Builder::new().stack_size(1 << 60);
        for (number, thread) in [(1, Builder::new()), (2, impossible)] {
            let dir = overlay.create(LayerId(number)).unwrap();
            removals.start_on(thread, overlay.clone(), dir.id());
            removals.finished().await;
            assert!(!dir.fs().exists());
        }
    }
}
