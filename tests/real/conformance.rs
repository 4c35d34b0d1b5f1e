//! The list of cases that the simulated API server is held to, on the real one.

use crate::conformance::run_all;
use crate::stack;

#[test]
fn the_real_api_server_passes_every_case_of_the_simulated_one() {
    stack::run(async |stack| {
        let ns = stack.namespace("conformance").await?;
        let results = run_all(stack.client(), &ns.name).await;
        let failed: Vec<String> = results.iter().filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?))).collect();
        assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), results.len(), failed.join("\n"));
        Ok(())
    });
}
