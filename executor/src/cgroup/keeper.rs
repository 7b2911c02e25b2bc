//! Makes groups before they are needed, and removes them off the path of builds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Cgroups, GroupSpec, StepCgroup};
use crate::spec::{Resources, Security};

/// Groups kept ready: one for the next step and one for the step that starts meanwhile.
const READY: usize = 2;

/// How long a group that still has processes is left before the next attempt.
const RETRY: Duration = Duration::from_millis(20);

/// How long the last groups are tried at the end. What is left then is removed when the next
/// daemon starts.
const LAST_TRY: Duration = Duration::from_secs(2);

/// A thread that makes and removes groups. Dropping it removes what it has made and been given.
#[derive(Debug)]
pub(crate) struct Keeper {
    ready: Arc<Ready>,
    sender: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    Prepare,
    Remove(StepCgroup),
}

/// Groups for confined steps without limits of their own, which most are.
#[derive(Debug)]
struct Ready {
    cgroups: Arc<Cgroups>,
    parent: String,
    limits: Resources,
    made: AtomicU64,
    groups: Mutex<Vec<StepCgroup>>,
}

impl Keeper {
    /// Starts the thread, for groups below `parent` with the `limits` of every step.
    pub(crate) fn start(
        cgroups: Arc<Cgroups>,
        parent: String,
        limits: Resources,
    ) -> std::io::Result<Self> {
        let (made, groups) = (AtomicU64::new(0), Mutex::default());
        let ready = Arc::new(Ready { cgroups, parent, limits, made, groups });
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&ready);
        let thread = std::thread::Builder::new()
            .name("kiln-cgroups".into())
            .spawn(move || keep(&receiver, &shared))?;
        let keeper = Self { ready, sender: Some(sender), thread: Some(thread) };
        keeper.send(Job::Prepare);
        Ok(keeper)
    }

    /// A group for a confined step without limits of its own, if one is ready.
    pub(crate) fn take(&self) -> Option<StepCgroup> {
        let group = self.ready.lock().pop();
        self.send(Job::Prepare);
        group
    }

    /// Removes `group` as soon as nothing is in it.
    pub(crate) fn remove(&self, group: StepCgroup) {
        self.send(Job::Remove(group));
    }

    /// The queue is unbounded, but holds at most two entries for each step that has run.
    fn send(&self, job: Job) {
        if let Some(sender) = &self.sender {
            // The thread ends only when the sender is dropped.
            let _ = sender.send(job);
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

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<StepCgroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes groups until there are enough. One that cannot be made is left to the step that
    /// needs it, which can report why.
    fn fill(&self) {
        while self.lock().len() < READY {
            let id = format!("ready-{}", self.made.fetch_add(1, Ordering::Relaxed));
            let (parent, limits) = (&self.parent, &self.limits);
            let (security, devices) = (Security::Sandbox, [].as_slice());
            let spec = GroupSpec { id: &id, parent, security, limits, devices };
            let Ok(group) = self.cgroups.create(&spec) else { return };
            self.lock().push(group);
        }
    }
}

fn keep(receiver: &mpsc::Receiver<Job>, ready: &Ready) {
    let mut busy: Vec<StepCgroup> = Vec::new();
    let mut deadline = None;
    loop {
        let next = if busy.is_empty() && deadline.is_none() {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(RETRY)
        };
        match next {
            Ok(Job::Prepare) => ready.fill(),
            Ok(Job::Remove(group)) => busy.push(group),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // Not before: a group may have been made for the last request in the queue.
                busy.append(&mut ready.lock());
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
