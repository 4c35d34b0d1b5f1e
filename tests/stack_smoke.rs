//! The test stack's own tests. Run inside `tests/stack/in-netns.sh`, after `tests/stack/components.sh`.

#[path = "stack/mod.rs"]
mod stack;

#[test]
fn pods_get_ready_are_replaced_and_have_logs() {
    stack::run(stack::smoke::pods);
}

#[test]
fn weights_move_new_calls_and_leave_open_ones_alone() {
    stack::run(stack::smoke::traffic);
}

#[test]
fn prometheus_scrapes_pods_and_survives_a_stop() {
    stack::run_alone(stack::smoke::metrics);
}

#[test]
fn a_program_that_dies_is_a_crash_loop() {
    stack::run(stack::smoke::crash);
}

#[test]
fn a_deleted_pod_has_its_grace_period() {
    stack::run(stack::smoke::grace);
}

#[test]
fn a_pod_acts_as_its_service_account() {
    stack::run(stack::smoke::service_account);
}

#[test]
fn parts_restart_under_running_pods() {
    stack::run_alone(stack::smoke::restarts);
}

/// Not a test: the program that the pods of the tests above run.
#[test]
#[ignore = "run by the stack as the program of a pod"]
fn responder() {
    stack::runtime().block_on(stack::smoke::respond()).expect("the responder");
}
