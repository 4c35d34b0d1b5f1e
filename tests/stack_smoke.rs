//! The test stack's own tests. Run inside `tests/stack/in-netns.sh`, after `tests/stack/components.sh`.

mod conformance;
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

/// The operator does not run here: nobody else writes to the cases' objects, and no admission policy is installed.
#[test]
fn the_real_api_server_passes_every_case_that_the_simulated_one_is_held_to() {
    stack::run(async |stack| {
        let ns = stack.namespace("conformance").await?;
        let results = conformance::run_all(stack.client(), &ns.name).await;
        let failed: Vec<String> =
            results.iter().filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?))).collect();
        assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), results.len(), failed.join("\n"));
        Ok(())
    });
}

/// Not a test: the program that the pods of the tests above run.
#[test]
#[ignore = "run by the stack as the program of a pod"]
fn responder() {
    stack::runtime().block_on(stack::smoke::respond()).expect("the responder");
}
