//! Removes groups off the path of builds.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StepCgroup;

/// How long a group that still has processes is left before the next attempt.
const RETRY: Duration = Duration::from_millis(20);

/// How long the last groups are tried at the end. What is left then is removed when the next
/// daemon starts.
const LAST_TRY: Duration = Duration::from_secs(2);

/// A thread that removes groups. Dropping it waits for what it was given.
#[derive(Debug)]
pub(crate) struct Keeper {
    sender: Option<Sender<StepCgroup>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("kiln-cgroups".into())
            .spawn(move || keep(&receiver))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Removes `group` as soon as nothing is in it. The queue is unbounded, but holds at most one
    /// entry for each step that has run.
    pub(crate) fn remove(&self, group: StepCgroup) {
        if let Some(sender) = &self.sender {
            // The thread ends only when the sender is dropped.
            let _ = sender.send(group);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            let _ = thread.join();
        }
    }
}

fn keep(receiver: &mpsc::Receiver<StepCgroup>) {
    let mut busy: Vec<StepCgroup> = Vec::new();
    let mut deadline = None;
    loop {
        let next = if busy.is_empty() && deadline.is_none() {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(RETRY)
        };
        match next {
            Ok(group) => busy.push(group),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let end = *deadline.get_or_insert_with(|| Instant::now() + LAST_TRY);
                if busy.is_empty() || Instant::now() > end {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        busy.retain(|group| group.remove().is_err());
    }
}
