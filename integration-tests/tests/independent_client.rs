//! A client that was not written here: the BuildKit driver of the `bollard` crate.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput};
use bollard::grpc::driver::buildkitd::{BuildkitDaemon, Endpoint};
use bollard::grpc::driver::{Export, Image as _, ImageExporterEnum};
use bollard::grpc::export::ImageExporterOutput;
use bollard::grpc::registry::ImageRegistryOutput;
use kiln_integration_tests::{Context, LayerTar, World, oci_archive};

/// Reads an archive that this client has written. It does not wait for its own last write.
fn archive(path: &Path) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let data = fs::read(path).expect("archive");
        // A tar ends with two empty blocks.
        if data.len() >= 1024 && data[data.len() - 1024..].iter().all(|&byte| byte == 0) {
            return data;
        }
        assert!(Instant::now() < end, "{} is cut off at {} bytes", path.display(), data.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn driver(world: &World) -> BuildkitDaemon {
    let socket = format!("unix:{}", world.daemon.socket().display());
    BuildkitDaemon::new(Endpoint::from_shared(socket).expect("the address of the daemon"))
}

/// This client uploads its context as a packed tar.
fn upload(dockerfile: &str) -> ImageBuildLoadInput {
    let tar = LayerTar::new()
        .file("Dockerfile", 0o644, dockerfile.as_bytes())
        .file("greeting", 0o644, b"hello\n")
        .finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("gzip in memory");
    ImageBuildLoadInput::Upload(gzip.finish().expect("gzip in memory").into())
}

#[tokio::test]
async fn it_builds_and_receives_an_archive() {
    let world = World::start();
    let out = Context::new();
    let dest = out.at("image.tar");
    let options = ImageBuildFrontendOptions::builder()
        .buildarg("WHO", "world")
        .label("org.example.by", "bollard")
        .build();
    let request = ImageExporterOutput::builder("example.com/app:1").dest(&dest);
    let dockerfile = "FROM busybox\nARG WHO\nCOPY greeting /greeting\nRUN echo $WHO >> /greeting\n";
    driver(&world)
        .export(ImageExporterEnum::OCI(request), options, upload(dockerfile), None, None)
        .await
        .expect("a build");
    let image = oci_archive(&archive(&dest));
    assert_eq!(image.file("greeting").text(), "hello\nworld\n");
    assert_eq!(image.config["config"]["Labels"]["org.example.by"], "bollard");
}

#[tokio::test]
async fn it_pushes_to_a_registry() {
    let world = World::start();
    let name = world.registry.reference("pushed:1");
    let output = ImageRegistryOutput::builder(&name).push(true).consume();
    let options = ImageBuildFrontendOptions::builder().target("wanted").build();
    let dockerfile = "FROM scratch AS wanted\nCOPY greeting /\nFROM scratch\nCOPY nothing /\n";
    driver(&world)
        .registry(output, options, upload(dockerfile), None, None)
        .await
        .expect("a build");
    assert_eq!(world.registry.image("pushed:1").file("greeting").text(), "hello\n");
}

#[tokio::test]
async fn it_reads_why_a_build_failed() {
    let world = World::start();
    let out = Context::new();
    let request = ImageExporterOutput::builder("example.com/app:1").dest(&out.at("image.tar"));
    let options = ImageBuildFrontendOptions::builder().build();
    let error = driver(&world)
        .export(
            ImageExporterEnum::OCI(request),
            options,
            upload("FROM busybox\nRUN exit 5\n"),
            None,
            None,
        )
        .await
        .expect_err("the step fails");
    assert!(format!("{error:?}").contains("exit code: 5"), "{error:?}");
}
