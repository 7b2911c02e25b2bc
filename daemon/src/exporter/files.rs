//! `type=local` and `type=tar`: the files of the result themselves, and what is attested of them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use kiln_cache::Hasher;
use kiln_proto::fsutil::{Packet, send};
use kiln_snapshotter::{Follow, FsError, View};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;

use super::send as delivery;
use super::tree::{Root, Roots};
use super::{Exported, Part, Parts};
use crate::attestation::{Attestation, Statement, StatementSubject, unbundle};
use crate::attributes::Attributes;
use crate::solver::{Build, Snapshot};

/// How files are laid out.
struct Layout {
    /// Whether each platform has a directory of its own.
    is_split: bool,
    /// What the names of attestations begin with.
    attestation_prefix: String,
}

impl Layout {
    fn take(parts: &Parts, attributes: &mut Attributes) -> anyhow::Result<Self> {
        Ok(Self {
            is_split: attributes.flag("platform-split", parts.is_by_platform)?,
            attestation_prefix: attributes.take("attestation-prefix").unwrap_or_default(),
        })
    }
}

/// The files of each part, where they go to.
async fn roots(build: &Arc<Build>, parts: &Parts, layout: &Layout) -> anyhow::Result<Roots> {
    let mut roots = Vec::new();
    for part in &parts.all {
        let layers = &build.daemon.layers;
        layers.fetch(build, &Snapshot::Layers(part.stack.clone())).await?;
        let view = layers.view_of(part.stack.ids())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let platform = part.id.replace('/', "_");
        let is_shared = parts.is_by_platform && !layout.is_split;
        roots.push(Root {
            beside: beside(build, part, &view, layout, is_shared.then_some(&platform)).await?,
            made_at: part.epoch.unwrap_or_else(|| i64::try_from(now).unwrap_or(i64::MAX)),
            dir: if layout.is_split { platform } else { String::new() },
            id: part.id.clone(),
            view,
        });
    }
    Ok(Roots(roots))
}

/// The statements about a file system by the names of their files, which name the `platform` if
/// those of others are there as well.
async fn beside(
    build: &Arc<Build>,
    part: &Part,
    view: &View,
    layout: &Layout,
    platform: Option<&String>,
) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let attestations: Vec<Attestation> =
        part.attestations.iter().filter(|it| !it.is_inline_only()).cloned().collect();
    let mut statements = BTreeMap::new();
    if attestations.is_empty() {
        return Ok(statements);
    }
    let files = view.clone();
    let subjects = tokio::task::spawn_blocking(move || subjects(&files)).await??;
    for (attestation, predicate) in unbundle(build, &attestations).await? {
        let filename = attestation.filename();
        let mut name = format!("{}{filename}", layout.attestation_prefix);
        if let Some(platform) = platform {
            name = match name.rsplit_once('.') {
                Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
                None => format!("{name}.{platform}"),
            };
        }
        if view.lookup(&name, Follow::NoLast)?.is_some() {
            bail!(
                "the result has a file {name} of its own: attestation-prefix=PREFIX gives the \
                 attestation another name"
            );
        }
        let statement = Statement::new(&attestation, predicate, &subjects);
        let json = serde_json::to_vec_pretty(&statement)?;
        if statements.insert(name.clone(), json.into()).is_some() {
            bail!("duplicate attestation path name {name}");
        }
    }
    Ok(statements)
}

/// All regular files, by path.
fn subjects(view: &View) -> anyhow::Result<Vec<StatementSubject>> {
    let walk = match view.walk("/") {
        Err(FsError::NotFound(_)) => return Ok(Vec::new()),
        walk => walk?,
    };
    let mut subjects = Vec::new();
    for entry in walk {
        let entry = entry?;
        if !entry.metadata().is_file() {
            continue;
        }
        let mut hasher = Hasher::new();
        io::copy(&mut entry.open()?, &mut hasher)
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        subjects.push(StatementSubject {
            name: entry.path().to_string_lossy().into_owned(),
            digest: [("sha256".to_owned(), hasher.finish().to_hex())].into(),
        });
    }
    Ok(subjects)
}

pub(super) async fn export_local(
    build: &Arc<Build>,
    parts: &Parts,
    mut attributes: Attributes,
    id: &str,
) -> anyhow::Result<Exported> {
    let layout = Layout::take(parts, &mut attributes)?;
    match attributes.take("mode").as_deref() {
        None | Some("" | "copy") => {}
        Some(other) => bail!("mode={other:?} is not supported by this daemon yet"),
    }
    attributes.finish()?;
    let vertex = build.progress.internal(&format!("export:{id}"), "exporting to client directory");
    let work = async {
        let roots = roots(build, parts, &layout).await?;
        let status = vertex.action("copying files", "transferring");
        let session = build.session()?;
        let (outgoing, incoming) = delivery::open(session, id, &BTreeMap::new())?;
        let decode = |message: Bytes| {
            Packet::decode(message).map_err(|error| Status::internal(error.to_string()))
        };
        let mut incoming = incoming.map(move |message| message.and_then(decode));
        let (packets, mut queue) = mpsc::channel::<Packet>(64);
        let encode = async move {
            while let Some(packet) = queue.recv().await {
                if outgoing.send(packet.encode_to_vec().into()).await.is_err() {
                    break;
                }
            }
        };
        let count = move |size: usize| status.add(size as u64);
        let (sent, ()) = tokio::join!(send(Arc::new(roots), &mut incoming, packets, count), encode);
        sent.context("cannot send files to the client")?;
        anyhow::Ok(Exported::default())
    };
    vertex.run(work).await
}

pub(super) async fn export_tar(
    build: &Arc<Build>,
    parts: &Parts,
    mut attributes: Attributes,
    id: &str,
) -> anyhow::Result<Exported> {
    let layout = Layout::take(parts, &mut attributes)?;
    attributes.finish()?;
    let vertex = build.progress.internal(&format!("export:{id}"), "exporting to client tarball");
    let work = async {
        let roots = roots(build, parts, &layout).await?;
        let _status = vertex.status("sending tarball");
        let session = build.session()?.clone();
        let write = move |out: &mut dyn Write| roots.write_tar(out);
        delivery::stream(&session, id, &BTreeMap::new(), write).await?;
        anyhow::Ok(Exported::default())
    };
    vertex.run(work).await
}
