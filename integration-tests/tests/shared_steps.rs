//! Steps that two builds want at the same time.

use kiln_integration_tests::{Context, Signal, State, World};

#[test]
fn a_build_does_not_fail_for_lack_of_another_builds_secret() {
    let world = World::start();
    let lock = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=cache,target=/c,sharing=locked echo locked; sleep 7501.5
        ",
    );
    let holder = world.build(&lock).start();
    holder.until_output("locked");

    let step = "RUN --mount=type=cache,target=/c,sharing=locked \
                --mount=type=secret,id=word,required=true,target=/word cat /word";
    let context = Context::new().dockerfile(&format!("FROM busybox\n{step}\n"));
    let without = world.build(&context).start();
    without.until("waiting for the lock");
    let secret = Context::new().file("word", "sesame\n");
    let with = format!("id=word,src={}", secret.at("word").display());
    let with = world.build(&context).args(["--secret", &with]).start();
    with.until("waiting for the lock");
    holder.signal(Signal::INT);
    holder.finish();

    let without = without.finish();
    assert_eq!(without.code, Some(1), "{}", without.stderr);
    without.says("secret word: not found");
    let with = with.finish();
    assert_eq!(with.code, Some(0), "{}", with.stderr);
    with.step_is(step, &State::Done);
    assert_eq!(with.step(step).log.last().map(String::as_str), Some("sesame"));
}
