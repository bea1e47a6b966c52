//! Labels that an agent finds by itself: what its host is, from files and the environment. Nothing
//! is asked over the network: a cloud is recognized by what its firmware says.

use std::collections::BTreeMap;
use std::path::Path;

/// Vendors of machines (DMI `sys_vendor`) by the beginning of the text, each with the cloud that it means.
const CLOUDS: [(&str, &str); 10] = [
    ("Alibaba Cloud", "alibaba"),
    ("Amazon EC2", "aws"),
    ("DigitalOcean", "digitalocean"),
    ("Exoscale", "exoscale"),
    ("Google", "gcp"),
    ("Hetzner", "hetzner"),
    ("OpenStack Foundation", "openstack"),
    ("OracleCloud", "oracle"),
    ("Scaleway", "scaleway"),
    ("Vultr", "vultr"),
];
/// The asset tag of every machine of Azure, whose vendor is only Microsoft Corporation.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// Finds labels below this root (`/`) and in the environment. Labels that are not known are left out.
pub fn found(
    root: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(key.to_owned(), value);
        }
    };
    let file = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(text.trim().to_owned())
    };
    add("host", file("proc/sys/kernel/hostname"));
    add("kernel", file("proc/sys/kernel/osrelease"));
    add("arch", Some(std::env::consts::ARCH.to_owned()));
    let release = file("etc/os-release").or_else(|| file("usr/lib/os-release"));
    let release = release.unwrap_or_default();
    add("os", value(&release, "ID").or(Some("linux".into())));
    add("os-version", value(&release, "VERSION_ID"));

    let vendor = file("sys/class/dmi/id/sys_vendor").unwrap_or_default();
    let tag = file("sys/class/dmi/id/chassis_asset_tag").unwrap_or_default();
    let cloud = CLOUDS
        .iter()
        .find(|(maker, _)| vendor.starts_with(maker))
        .map(|(_, cloud)| *cloud);
    let cloud = cloud.or((tag == AZURE).then_some("azure"));
    add("cloud", cloud.map(str::to_owned));
    if cloud == Some("aws") {
        // On AWS, the product is the type of the instance.
        add("instance-type", file("sys/class/dmi/id/product_name"));
    }
    if environment("KUBERNETES_SERVICE_HOST").is_some() {
        let account = "var/run/secrets/kubernetes.io/serviceaccount/namespace";
        let namespace = environment("POD_NAMESPACE").or_else(|| file(account));
        add("kubernetes-namespace", namespace);
        add("kubernetes-node", environment("NODE_NAME"));
        add("kubernetes-pod", environment("POD_NAME"));
    }
    labels
}

/// A value of os-release(5): maybe in quotes.
fn value(text: &str, key: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a made-up root")]
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn labels_of_a_cloud_machine_in_kubernetes_are_found() {
        let root = root(&[
            ("proc/sys/kernel/hostname", "db-1\n"),
            ("proc/sys/kernel/osrelease", "6.12.1\n"),
            (
                "etc/os-release",
                "NAME=\"Debian\"\nVERSION_ID=\"13\"\nID=debian\n",
            ),
            ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
            ("sys/class/dmi/id/product_name", "m7i.large\n"),
        ]);
        let environment = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("10.0.0.1".into()),
            "NODE_NAME" => Some("node-7".into()),
            _ => None,
        };
        let mut labels = found(root.path(), environment);
        labels.remove("arch").unwrap();
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            labels,
            [
                ("cloud", "aws"),
                ("host", "db-1"),
                ("instance-type", "m7i.large"),
                ("kernel", "6.12.1"),
                ("kubernetes-node", "node-7"),
                ("os", "debian"),
                ("os-version", "13"),
            ]
        );
    }

    #[test]
    fn labels_unknown_are_left_out() {
        let root = root(&[
            ("sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n"),
            ("sys/class/dmi/id/chassis_asset_tag", AZURE),
        ]);
        let labels = found(root.path(), |_| None);
        let keys: Vec<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(keys, ["arch", "cloud", "os"]);
        assert_eq!(labels["cloud"], "azure");
        assert_eq!(labels["os"], "linux");
    }
}
