//! How a build ended, as far as its record says.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_cache::{Descriptor, Digest, Hit, Pin};
use kiln_proto::control::{self, BuildHistoryRecord, BuildResultInfo};
use kiln_proto::rpc;

use super::store::Store;
use crate::attestation::{MEDIA_TYPE, PREDICATE_TYPE};
use crate::provenance::Provenance;
use crate::solver::Build;

/// What one exporter made of the result, if it made an image.
#[derive(Clone, Debug)]
pub(crate) struct ExportedImage {
    /// The manifest, or the index of several.
    pub(crate) target: Descriptor,
    /// What the image consists of besides its layers: manifests and configs.
    pub(crate) blobs: Vec<Digest>,
}

/// The provenance of results, by platform where there are several.
type OfResults = Vec<(Option<String>, Arc<Provenance>)>;

/// What is to be recorded of a build's end.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What the frontend said of the result.
    pub(crate) metadata: BTreeMap<String, String>,
    result: BuildResultInfo,
    results: BTreeMap<String, BuildResultInfo>,
    blobs: Vec<Digest>,
    /// Keeps the blobs until the record does.
    pins: Vec<Pin>,
    /// Where the results come from, and the build that knows.
    provenance: Option<(Arc<Build>, OfResults)>,
    pub(super) error: Option<rpc::Status>,
}

impl Outcome {
    /// A build that succeeded, with what its frontend said of the result.
    pub(crate) fn of(metadata: BTreeMap<String, String>) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// A build that failed.
    pub(crate) fn failed(error: rpc::Status) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    /// Notes what the exporter at position `exporter` of the request made.
    pub(crate) fn exported(&mut self, exporter: usize, image: &ExportedImage, pin: Pin) {
        let target = to_wire(&image.target);
        // Clients that know of one exporter only look here.
        self.result.result_deprecated.get_or_insert_with(|| target.clone());
        self.result.results.insert(i64::try_from(exporter).unwrap_or(i64::MAX), target);
        self.blobs.extend(&image.blobs);
        self.blobs.push(image.target.digest);
        self.pins.push(pin);
    }

    /// Notes where the results come from, by platform where there are several. It is written down
    /// with the record.
    pub(crate) fn comes_from(&mut self, build: Arc<Build>, provenance: OfResults) {
        self.provenance = Some((build, provenance));
    }

    /// Attaches the provenance, each predicate kept in `store`. Blocks.
    pub(super) fn attach_provenance(&mut self, store: &Store) -> anyhow::Result<()> {
        let Some((build, all)) = self.provenance.take() else { return Ok(()) };
        for (platform, provenance) in all {
            let stored = store.put_blob(MEDIA_TYPE, &provenance.write(&build)?)?;
            self.attach(platform.as_deref(), provenance.predicate_type(), stored)?;
        }
        Ok(())
    }

    /// Attaches what is stated about a result: that of `platform`, or the only one.
    fn attach(
        &mut self,
        platform: Option<&str>,
        predicate_type: &str,
        stored: Hit<control::Descriptor>,
    ) -> anyhow::Result<()> {
        let Hit { row: mut statement, pin } = stored;
        self.blobs.push(statement.digest.parse()?);
        self.pins.push(pin);
        statement.annotations.insert(PREDICATE_TYPE.to_owned(), predicate_type.to_owned());
        let result = match platform {
            Some(id) => self.results.entry(id.to_owned()).or_default(),
            None => &mut self.result,
        };
        result.attestations.push(statement);
        Ok(())
    }

    /// Completes a record. Returns the blobs that are to be kept with it, and what keeps them until
    /// then.
    pub(super) fn describe(self, record: &mut BuildHistoryRecord) -> (Vec<Digest>, Vec<Pin>) {
        record.exporter_response = self.metadata;
        // Clients rely on it where a build has succeeded, even if there is nothing in it.
        record.result = self.error.is_none().then_some(self.result);
        record.results = self.results;
        (self.blobs, self.pins)
    }
}

fn to_wire(descriptor: &Descriptor) -> control::Descriptor {
    control::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_cache::Index;

    use super::*;

    #[test]
    fn what_belongs_to_a_result_is_recorded_with_it_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(directory.path().join("index")).unwrap();
        let blob = |content: &str| Descriptor::new("type", Digest::of(content), 1);
        let pin = |blob: &Descriptor| index.pin_blobs(&[blob.digest]);
        let mut outcome = Outcome::of(BTreeMap::from([("key".to_owned(), "value".to_owned())]));
        let image = blob("image");
        let exported = ExportedImage { target: image.clone(), blobs: vec![Digest::of("config")] };
        outcome.exported(1, &exported, pin(&image));
        let statement = blob("statement");
        for platform in [None, Some("linux/amd64")] {
            let stored = Hit { row: to_wire(&statement), pin: pin(&statement) };
            outcome.attach(platform, "kind", stored).unwrap();
        }
        let mut record = BuildHistoryRecord::default();
        let (blobs, pins) = outcome.describe(&mut record);
        let digests = ["config", "image", "statement", "statement"].map(Digest::of);
        assert_eq!((blobs, pins.len()), (digests.to_vec(), 3));
        let result = record.result.unwrap();
        assert_eq!(result.results[&1], to_wire(&image));
        assert_eq!(result.result_deprecated, Some(to_wire(&image)));
        let mut statement = to_wire(&statement);
        statement.annotations.insert(PREDICATE_TYPE.to_owned(), "kind".to_owned());
        assert_eq!(result.attestations, [statement]);
        assert_eq!(record.results["linux/amd64"].attestations, result.attestations);
        assert_eq!(record.exporter_response["key"], "value");
    }
}
