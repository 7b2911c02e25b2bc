//! Steps with rights beyond the usual.

use kiln_integration_tests::{Context, Signal, State, World};

const REFUSED: &str = "network.host is not allowed";

#[test]
fn a_right_has_to_be_allowed_whether_or_not_the_step_is_cached() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN --network=host echo with a network");
    world.build(&context).fails().says(REFUSED);
    let allowed = || world.build(&context).args(["--allow", "network.host"]);
    allowed().succeeds();
    world.build(&context).fails().says(REFUSED);
    allowed().succeeds().step_is("RUN --network=host echo with a network", &State::Cached);

    context.write_dockerfile(
        "
        FROM busybox
        RUN --network=host echo with a network
        RUN echo later
        ",
    );
    allowed().succeeds();
    world.build(&context).fails().says(REFUSED);
}

#[test]
fn a_right_has_to_be_allowed_to_join_a_step_that_runs() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN --network=host echo started; sleep 7401.5");
    let allowed = world.build(&context).args(["--allow", "network.host"]).start();
    allowed.until_output("started");
    world.build(&context).fails().says(REFUSED);
    allowed.signal(Signal::INT);
    allowed.finish();
}
