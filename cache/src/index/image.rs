//! The local image store: names of images that were built or pulled.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Index, IndexError, db::Batch, error::Result, pin::Pinnable, schema::Family};
use crate::{descriptor::Descriptor, digest::Digest, gc::Policy, layer::LayerId};

/// An image that has a name here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageRow {
    /// The manifest, or the index of several.
    pub target: Descriptor,
    /// All blobs here that the image needs: manifests, configs, layers. They stay as long as the
    /// name does.
    pub blobs: Vec<Digest>,
    /// The image's layers. A garbage collection spares them unless it must take everything into
    /// account (`all`); when one of them goes, so does the name. Without any, the name goes when
    /// everything does.
    pub layers: Vec<LayerId>,
    /// Whether a registry was given it under this name, and has the last word about it.
    pub is_pushed: bool,
    /// When the name was given to it.
    pub updated_at: SystemTime,
}

impl Index {
    /// The image of that name.
    pub fn image(&self, name: &str) -> Result<Option<ImageRow>> {
        self.db.get(Family::Images, name.as_bytes())
    }

    /// Names an image, taking the name from another if that has it.
    ///
    /// # Errors
    /// [`IndexError::NoBlob`] if a blob is not in the content store.
    pub fn put_image(&self, name: &str, row: &ImageRow) -> Result<()> {
        let mut pins = self.pins.lock();
        for digest in row.blobs.iter().chain([&row.target.digest]) {
            if !self.db.contains(Family::Blobs, digest.as_bytes())? {
                return Err(IndexError::NoBlob(*digest));
            }
            pins.note_reference(Pinnable::Blob(*digest));
        }
        for layer in &row.layers {
            pins.note_reference(Pinnable::Layer(*layer));
        }
        let mut batch = Batch::new(&self.db);
        batch.put(Family::Images, name.as_bytes(), row);
        batch.write()
    }

    /// Takes a name from its image; `false` if there is none. What nothing else needs goes with the
    /// next collection.
    pub fn remove_image(&self, name: &str) -> Result<bool> {
        let _pins = self.pins.lock();
        let existed = self.db.contains(Family::Images, name.as_bytes())?;
        let mut batch = Batch::new(&self.db);
        batch.delete(Family::Images, name.as_bytes());
        batch.write()?;
        Ok(existed)
    }

    /// Takes the names from images without layers, if a policy removes everything.
    pub(super) fn remove_images_without_layers(
        &self,
        policies: &[Policy],
        now: SystemTime,
    ) -> Result<()> {
        let is_due = |image: &ImageRow| {
            image.layers.is_empty()
                && policies.iter().any(|policy| policy.is_of_everything(image.updated_at, now))
        };
        for (name, _) in self.images()?.into_iter().filter(|(_, image)| is_due(image)) {
            let _pins = self.pins.lock();
            // It may be another image's now.
            if self.image(&name)?.as_ref().is_some_and(is_due) {
                let mut batch = Batch::new(&self.db);
                batch.delete(Family::Images, name.as_bytes());
                batch.write()?;
            }
        }
        Ok(())
    }

    /// All images by name.
    pub fn images(&self) -> Result<Vec<(String, ImageRow)>> {
        self.db
            .scan(Family::Images, &[])
            .map(|row| {
                row.map(|(name, image)| (String::from_utf8_lossy(&name).into_owned(), image))
            })
            .collect()
    }
}
