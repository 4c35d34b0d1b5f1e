//! `version`: of this program, and of the operator where it can be seen.

use std::io::Write;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Session, data, request, say};
use crate::cli::args::Output;
use crate::cli::error::CliError;

/// Label that the chart puts on the operator's Deployment.
const OPERATOR: &str = "app.kubernetes.io/name=voicerollout";

impl Session {
    /// Prints the versions. That the operator cannot be seen is said, and is no error.
    ///
    /// # Errors
    /// Nothing can be printed.
    pub async fn version(&self, output: Option<Output>, out: &mut impl Write) -> Result<(), CliError> {
        let api: Api<Deployment> = Api::all(self.client.clone());
        let list = request("look for the operator's Deployment", api.list(&ListParams::default().labels(OPERATOR))).await;
        let operators = list.map(|l| l.items).map_err(|e| e.to_string());
        print(&operators, output, out)
    }
}

/// Prints this program's version alone; `why` says why the operator's is not there.
///
/// # Errors
/// Nothing can be printed.
pub fn client(output: Option<Output>, why: Option<String>, out: &mut impl Write) -> Result<(), CliError> {
    print(&why.map_or(Ok(Vec::new()), Err), output, out)
}

fn print(operators: &Result<Vec<Deployment>, String>, output: Option<Output>, out: &mut impl Write) -> Result<(), CliError> {
    let client = env!("CARGO_PKG_VERSION");
    let seen: Vec<(String, String)> = operators.iter().flatten().map(|d| (place(d), image(d))).collect();
    if let Some(output) = output {
        let list: Vec<Value> = seen.iter().map(|(place, image)| json!({"deployment": place, "image": image})).collect();
        let mut all = json!({"client": client, "operators": list});
        if let Err(why) = operators {
            all["operatorsUnknown"] = json!(why);
        }
        return data(out, output, &all);
    }
    say(out, &format!("client    {client}\n"))?;
    for (place, image) in seen {
        say(out, &format!("operator  {image}  (Deployment {place})\n"))?;
    }
    match operators {
        Err(why) => say(out, &format!("operator  not known: {why}\n")),
        Ok(_) => Ok(()),
    }
}

fn place(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
}

fn image(deployment: &Deployment) -> String {
    let spec = deployment.spec.template.spec.as_ref();
    spec.and_then(|s| s.containers.first()?.image.clone()).unwrap_or_else(|| "an image that it does not name".into())
}
