//! Parses the command line and hands over.
fn main() {
    for (name, crd) in voicerollout::api::crds::all() {
        std::fs::write(format!("crds/{name}.yaml"), voicerollout::api::crds::to_yaml(&crd)).unwrap();
    }
}
