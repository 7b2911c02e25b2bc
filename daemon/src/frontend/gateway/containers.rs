//! The containers that a frontend has, by its names for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;

use crate::ops::exec::Container;

/// All containers of a build; none once it has ended.
pub(super) struct Containers(Mutex<Option<HashMap<String, Arc<Container>>>>);

impl Containers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }

    /// Makes a container known.
    pub(super) fn add(&self, id: &str, container: Container) -> Result<(), Status> {
        let mut containers = self.0.lock();
        let Some(containers) = &mut *containers else {
            return Err(Status::cancelled("the build has ended"));
        };
        match containers.entry(id.to_owned()) {
            Entry::Occupied(_) => {
                Err(Status::already_exists(format!("container {id} already exists")))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::new(container));
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, id: &str) -> Result<Arc<Container>, Status> {
        let containers = self.0.lock();
        let found = containers.as_ref().and_then(|containers| containers.get(id).cloned());
        found.ok_or_else(|| unknown(id))
    }

    /// Ends a container with all its processes.
    pub(super) fn release(&self, id: &str) -> Result<(), Status> {
        let released = self.0.lock().as_mut().and_then(|containers| containers.remove(id));
        let released = released.ok_or_else(|| unknown(id))?;
        released.end();
        Ok(())
    }

    /// Ends all containers, and lets no more be made.
    pub(super) fn close(&self) {
        let closed = self.0.lock().take();
        closed.into_iter().flat_map(HashMap::into_values).for_each(|container| container.end());
    }
}

fn unknown(id: &str) -> Status {
    Status::not_found(format!("container {id:?} was released or never made"))
}
