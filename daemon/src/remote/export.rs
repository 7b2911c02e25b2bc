//! Exporting: the records behind a result, with their layers, as a cache for others.
//!
//! What a build makes for a cache of all results is packed and sent while later steps run
//! ([`Exports::ahead`]); at the end ([`Exports::run`]) what is left follows, and the manifest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::bail;
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use kiln_cache::remote::{CONFIG_MEDIA_TYPE, CacheManifest, ExportGraph, Exported, ManifestFormat};
use kiln_cache::{CREATED_AT, CacheKey, Descriptor, LayerId, UNCOMPRESSED};
use kiln_object_store::HttpClient;
use kiln_proto::control::CacheOptionsEntry;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Place;
use super::upload::Uploads;
use crate::attributes::Attributes;
use crate::compression::Format;
use crate::exporter::{BlobOptions, LayerBlob, blob, blobs_by_layer};
use crate::frontend::Refs;
use crate::solver::{Build, Snapshot, SolveError, Stack, VertexProgress};

/// Caches that a client wants.
#[derive(Default)]
pub(crate) struct Exports {
    places: Vec<Arc<Export>>,
    /// Whether images get their caches in their configs.
    pub(crate) is_inline: bool,
}

struct Export {
    uploads: Arc<Uploads>,
    mode: Mode,
    blobs: BlobOptions,
    format: ManifestFormat,
    /// Whether a build succeeds if this fails.
    ignores_errors: bool,
}

/// Which results a cache holds. It knows the keys of all steps either way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Those whose layers are in the build's result.
    Min,
    /// All.
    Max,
}

/// Records whose results are to be in a cache.
struct Selected {
    graph: ExportGraph,
    /// By the primary keys of the records.
    stacks: HashMap<CacheKey, Stack>,
}

impl Exports {
    /// Reads what a request says of exports.
    pub(crate) fn parse(entries: &[CacheOptionsEntry], http: &HttpClient) -> anyhow::Result<Self> {
        let mut exports = Self::default();
        for entry in entries {
            if entry.r#type == "inline" {
                // Attributes change nothing: an image holds what its own layers are the results of,
                // whatever the mode, and they are as the exporter has them.
                exports.is_inline = true;
            } else {
                exports.places.push(Arc::new(Export::parse(entry, http)?));
            }
        }
        Ok(exports)
    }

    /// Sends what the build makes to those places that want all of it, while it goes on. Does not end;
    /// what was begun goes on when this is dropped, until the build ends. Failures are left to
    /// [`Self::run`].
    pub(crate) async fn ahead(&self, build: &Arc<Build>) -> Infallible {
        let all = self.places.iter().filter(|export| export.mode == Mode::Max);
        let all: Vec<&Arc<Export>> = all.collect();
        if all.is_empty() {
            return std::future::pending().await;
        }
        let (mut made, mut seen) = (build.watch(), HashSet::new());
        let mut sending = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(stack) = made.recv() => {
                    for (position, &id) in stack.ids().iter().enumerate() {
                        if seen.insert(id) {
                            let send = |export: &&Arc<Export>| {
                                let (build, export) = (build.clone(), Arc::clone(export));
                                let stack = stack.clone();
                                async move { export.send(&build, &stack, position).await }
                            };
                            sending.extend(all.iter().map(send));
                        }
                    }
                }
                Some(sent) = sending.next() => if let Err(error) = sent {
                    tracing::debug!(build = build.id, "a layer is not exported yet: {error:#}");
                },
            }
        }
    }

    /// Exports what the build has made. Returns what the client is to know.
    pub(crate) async fn run(
        &self,
        build: &Arc<Build>,
        refs: &Refs,
    ) -> Result<BTreeMap<String, String>, SolveError> {
        let mut response = BTreeMap::new();
        for (index, export) in self.places.iter().enumerate() {
            let name = match export.uploads.place() {
                Place::Registry { .. } => "exporting cache to registry",
                Place::Directory(_) => "exporting cache to client directory",
                Place::Store(cache) => cache.exporting(),
            };
            let vertex = build.progress.internal(&format!("cache-export:{index}"), name);
            match vertex.run(export.run(build, refs, &vertex)).await {
                Ok(answer) => response.extend(answer),
                Err(error) if export.ignores_errors => {
                    tracing::debug!(error = %format!("{error:#}"), "ignored: {name}");
                }
                Err(error) => return Err(error.context(name).into()),
            }
        }
        Ok(response)
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        for export in &self.places {
            export.uploads.close();
        }
    }
}

impl Export {
    fn parse(entry: &CacheOptionsEntry, http: &HttpClient) -> anyhow::Result<Self> {
        let kind = &entry.r#type;
        let mut attributes = Attributes::new(format!("{kind} cache export"), &entry.attrs);
        let place = Place::parse(kind, &mut attributes, "dest", http)?;
        let mode = match attributes.take("mode").as_deref() {
            None | Some("" | "min") => Mode::Min,
            Some("max") => Mode::Max,
            Some(other) => bail!("{kind} cache export: mode={other:?} is neither min nor max"),
        };
        let oci = attributes.flag("oci-mediatypes", true)?;
        let is_image = match place {
            // It has no manifest, and its names are the store's.
            Place::Store(_) => oci,
            Place::Registry { .. } | Place::Directory(_) => {
                // It is the client that gives the new cache its name in the directory, and removes
                // what others have left there.
                attributes.take("tag");
                attributes.flag("reset", false)?;
                attributes.flag("image-manifest", oci)?
            }
        };
        let format = match (oci, is_image) {
            (true, true) => ManifestFormat::OciImage,
            (true, false) => ManifestFormat::OciIndex,
            (false, false) => ManifestFormat::DockerList,
            (false, true) => bail!("image-manifest=true needs oci-mediatypes=true"),
        };
        let blobs = BlobOptions {
            format: attributes.compression()?,
            force: attributes.flag("force-compression", false)?,
            oci,
            max_mtime: None,
        };
        if !oci && matches!(blobs.format, Format::Zstd(_)) {
            bail!("compression=zstd needs oci-mediatypes=true");
        }
        let ignores_errors = attributes.flag("ignore-error", false)?;
        attributes.finish()?;
        let uploads = Arc::new(Uploads::new(place));
        Ok(Self { uploads, mode, blobs, format, ignores_errors })
    }

    /// Packs and sends one layer, if its files are here. Others can wait until it is clear that they
    /// belong to the result.
    async fn send(&self, build: &Arc<Build>, stack: &Stack, position: usize) -> anyhow::Result<()> {
        let row = build.daemon.index.layer(stack.ids()[position])?;
        if row.is_none_or(|row| !row.presence.is_local) {
            return Ok(());
        }
        let layer = blob(build, stack, position, &self.blobs).await?;
        self.uploads.send(build, &layer).await
    }

    async fn run(
        &self,
        build: &Arc<Build>,
        refs: &Refs,
        vertex: &VertexProgress,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let preparing = vertex.status("preparing build cache for export");
        let selected = self.select(build, refs).await?;
        let stacks: Vec<Stack> = selected.stacks.values().cloned().collect();
        let layers = blobs_by_layer(build, &stacks, &self.blobs).await?;
        let exported = selected.export(&layers)?;
        drop(preparing);
        if exported.blobs.is_empty() {
            drop(vertex.status("skipping cache export for empty result"));
            return Ok(BTreeMap::new());
        }
        self.write(build, &exported, &layers, vertex).await
    }

    /// The records behind a result, and those of their results that this export is to hold.
    async fn select(&self, build: &Arc<Build>, refs: &Refs) -> anyhow::Result<Selected> {
        let (mut keys, mut in_result) = (Vec::new(), HashSet::new());
        for edge in refs.edges() {
            let outputs = build.outputs(edge).await.map_err(SolveError::into_cause)?;
            keys.extend(outputs.keys.as_ref().and_then(|keys| keys.get(edge.output)));
            if let Some(Snapshot::Layers(stack)) = outputs.snapshot(edge.output) {
                in_result.extend(stack.ids().iter().copied());
            }
        }
        let mut stacks = HashMap::new();
        let graph = ExportGraph::collect(&keys, |key| {
            let Some((record, hit)) = build.exported_record(*key)? else { return Ok(None) };
            let is_wanted = |result: &[LayerId]| {
                self.mode == Mode::Max || result.iter().all(|id| in_result.contains(id))
            };
            if let Some(hit) = hit
                && is_wanted(&hit.row.result)
                && build.is_obtainable(&hit.row.result)?
            {
                stacks.insert(hit.row.key, Stack::new(hit.row.result, hit.pin));
            }
            anyhow::Ok(Some(record))
        })?;
        Ok(Selected { graph, stacks })
    }

    /// The config and the manifest of a cache, in the content store.
    fn manifest(
        &self,
        build: &Build,
        exported: &Exported,
    ) -> anyhow::Result<(Descriptor, Descriptor)> {
        let json = serde_json::to_vec(&exported.config)?;
        let digest = build.store_small(&json)?;
        let config = Descriptor::new(CONFIG_MEDIA_TYPE, digest, json.len() as u64);
        let layers = exported.blobs.clone();
        let json = CacheManifest { config: config.clone(), layers }.to_json(self.format);
        let digest = build.store_small(&json)?;
        Ok((config, Descriptor::new(self.format.media_type(), digest, json.len() as u64)))
    }

    /// Brings layers, config and manifest to where they belong.
    async fn write(
        &self,
        build: &Arc<Build>,
        exported: &Exported,
        layers: &HashMap<LayerId, LayerBlob>,
        vertex: &VertexProgress,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let by_digest: HashMap<_, _> =
            layers.values().map(|layer| (layer.descriptor.digest, layer)).collect();
        let layers = exported.blobs.iter().filter_map(|blob| by_digest.get(&blob.digest));
        try_join_all(layers.map(async |layer| {
            let Descriptor { digest, size, .. } = layer.descriptor;
            let status = vertex.status(format!("writing layer {digest}"));
            status.total(size);
            self.uploads.send(build, layer).await?;
            status.add(size);
            anyhow::Ok(())
        }))
        .await?;
        if let Place::Store(cache) = self.uploads.place() {
            let _status = vertex.status("writing cache manifest");
            let mut exported = exported.clone();
            exported.annotate();
            cache.store()?.save_index(serde_json::to_vec(&exported.config)?.into()).await?;
            return Ok(BTreeMap::new());
        }
        let (config, target) = self.manifest(build, exported)?;
        let writing_config = vertex.status(format!("writing config {}", config.digest));
        self.uploads.send_small(build, &config).await?;
        drop(writing_config);
        let _status = vertex.status(format!("writing cache image manifest {}", target.digest));
        self.uploads.send_manifest(build, &target).await?;
        Ok(match self.uploads.place() {
            // The client gives it its name in the directory.
            Place::Directory(_) => {
                BTreeMap::from([("cache.manifest".to_owned(), serde_json::to_string(&target)?)])
            }
            _ => BTreeMap::new(),
        })
    }
}

impl Selected {
    fn export(&self, layers: &HashMap<LayerId, LayerBlob>) -> anyhow::Result<Exported> {
        let mut chains = HashMap::new();
        for (key, stack) in &self.stacks {
            let blobs = stack.ids().iter().filter_map(|id| layers.get(id)).map(describe);
            chains.insert(*key, blobs.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(self.graph.export(&chains))
    }
}

/// A layer's descriptor, with what an importer has to know of it.
pub(super) fn describe(layer: &LayerBlob) -> anyhow::Result<Descriptor> {
    let created_at = OffsetDateTime::from(layer.row.created_at).format(&Rfc3339)?;
    let mut descriptor = layer.descriptor.clone();
    descriptor.annotations.insert(UNCOMPRESSED.to_owned(), layer.diff_id.to_string());
    descriptor.annotations.insert(CREATED_AT.to_owned(), created_at);
    Ok(descriptor)
}
