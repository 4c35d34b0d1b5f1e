//! Where measurements may connect to. Addresses inside the node or the cloud's control plane are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What is refused beyond the built-in list, and what is allowed in spite of it.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Host names and networks that may be reached although they are on the refused list.
    pub allow: Vec<Allow>,
    /// More addresses to refuse: the API server's.
    pub deny_extra: Vec<IpAddr>,
}

/// An entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// A network or one address: `10.0.0.0/8`, `::1`.
    Net(IpNet),
    /// A host name, without regard to case: `metrics.local`; `*.metrics.local` names everything below it.
    Host(String),
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(ip.into()));
        }
        let name = normal(text);
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let valid = labels.split('.').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
        // A name whose last label is a number is a mistyped address.
        let numeric = labels.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if valid && !numeric { Ok(Self::Host(name)) } else { Err(format!("{text:?} is neither a host name nor a network like 10.0.0.0/8")) }
    }
}

/// Why a connection is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not http or https.
    #[error("only http and https are allowed, not {0}")]
    Scheme(String),
    /// User and password in the URL.
    #[error("user and password do not belong in a URL; use `auth`")]
    UserInfo,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// Every address of the host is on the refused list.
    #[error(
        "{host} is {ip}, {what}, which measurements may not reach; if it is meant, name the host or its network in the chart value `egress.allow`"
    )]
    Address {
        /// Host as in the URL.
        host: String,
        /// The address.
        ip: IpAddr,
        /// What kind of address it is.
        what: &'static str,
    },
}

impl Egress {
    /// Checks scheme, host and a literal address. Names are checked when they have been resolved.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        match url.host() {
            None => Err(Refused::NoHost),
            Some(Host::Ipv4(ip)) => self.check_ip(&ip.to_string(), ip.into()),
            Some(Host::Ipv6(ip)) => self.check_ip(&ip.to_string(), ip.into()),
            Some(Host::Domain(_)) => Ok(()),
        }
    }

    /// Checks one address that `host` stands for.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn check_ip(&self, host: &str, ip: IpAddr) -> Result<(), Refused> {
        let all: Vec<IpAddr> = std::iter::once(ip).chain(embedded_v4(ip).map(IpAddr::V4)).collect();
        if self.allows_name(host) || all.iter().any(|ip| self.allows_ip(*ip)) {
            return Ok(());
        }
        let denied = |ip: &IpAddr| self.deny_extra.contains(ip).then_some("an address of the Kubernetes API server");
        match all.iter().find_map(|ip| denied(ip).or_else(|| builtin(*ip))) {
            Some(what) => Err(Refused::Address { host: host.to_owned(), ip, what }),
            None => Ok(()),
        }
    }

    fn allows_ip(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|a| matches!(a, Allow::Net(net) if net.contains(&ip)))
    }

    fn allows_name(&self, host: &str) -> bool {
        let host = normal(host);
        self.allow.iter().any(|a| match a {
            Allow::Net(_) => false,
            Allow::Host(name) => match name.strip_prefix("*.") {
                Some(parent) => host.strip_suffix(parent).is_some_and(|left| left.len() > 1 && left.ends_with('.')),
                None => *name == host,
            },
        })
    }

    /// The addresses of `host` that may be reached.
    fn filter(&self, host: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for addr in found {
            match self.check_ip(host, addr.ip()) {
                Ok(()) => allowed.push(addr),
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        match refused {
            Some(e) if allowed.is_empty() => Err(e),
            _ => Ok(allowed),
        }
    }
}

/// Lower case, without the root's dot.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The IPv4 address that an IPv6 address carries: mapped, compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let s = v6.segments();
    let v4 = |hi: u16, lo: u16| Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo));
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Some(v4(hi, lo)),
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => Some(v4(hi, lo)),
        [0x2002, hi, lo, ..] => Some(v4(hi, lo)),
        _ => None,
    }
}

/// Instance metadata services that do not lie in a link-local network.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// What a refused address is.
fn builtin(ip: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&ip) || ip == IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)) {
        return Some("a cloud metadata address");
    }
    let (link_local, broadcast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), false),
    };
    let unspecified = ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0);
    match ip {
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if link_local => Some("a link-local address"),
        _ if unspecified => Some("an unspecified address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        _ if broadcast => Some("a broadcast address"),
        _ => None,
    }
}

/// Resolves names and leaves out the refused addresses, so that what was checked is what is connected to.
pub(super) struct GuardedResolver(pub(super) Arc<Egress>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = egress.filter(name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(allow: &[&str]) -> Egress {
        Egress {
            allow: allow.iter().map(|a| a.parse().unwrap()).collect(),
            deny_extra: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn addresses() {
        let e = egress(&[]);
        let refused = [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "link-local"),
            ("fe80::1", "link-local"),
            ("fd00:ec2::254", "metadata"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("10.96.0.1", "API server"),
            ("fd00::1", "API server"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "metadata"),
            ("::ffff:10.96.0.1", "API server"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("2002:7f00:1::", "loopback"),
        ];
        for (ip, what) in refused {
            let error = e.check_ip("host", ip.parse().unwrap()).expect_err(ip).to_string();
            assert!(error.contains(what) && error.contains("egress.allow"), "{ip}: {error}");
        }
        for ip in ["10.96.0.2", "192.168.1.1", "172.16.0.1", "8.8.8.8", "fd00::2", "2606:4700::1111", "::ffff:10.0.0.1"] {
            assert_eq!(e.check_ip("host", ip.parse().unwrap()), Ok(()), "{ip}");
        }
    }

    #[test]
    fn urls() {
        let e = egress(&[]);
        let check = |u: &str| e.check_url(&Url::parse(u).unwrap()).map_err(|e| e.to_string());
        for (url, what) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f.1:8080/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("https://[::ffff:7f00:1]/", "loopback"),
            ("http://[::]:80/", "unspecified"),
            ("ftp://h/", "only http"),
            ("file:///etc/passwd", "only http"),
            ("http://user:pw@h/", "auth"),
        ] {
            let error = check(url).expect_err(url);
            assert!(error.contains(what) && !error.contains("pw@"), "{url}: {error}");
        }
        assert_eq!(check("http://prometheus.monitoring.svc:9090/"), Ok(()));
    }

    #[test]
    fn the_allow_list() {
        let e = egress(&["127.0.0.0/8", "::1", "Meta.Local", "*.metrics.local", "10.96.0.1"]);
        let ok = |host: &str, ip: &str| e.check_ip(host, ip.parse().unwrap()).is_ok();
        assert!(ok("h", "127.0.0.1") && ok("h", "::ffff:127.0.0.1") && ok("h", "::1") && ok("h", "10.96.0.1"));
        assert!(ok("meta.local.", "169.254.169.254") && ok("a.metrics.local", "169.254.1.1"));
        assert!(!ok("metrics.local", "169.254.1.1") && !ok("xmetrics.local", "169.254.1.1") && !ok("h", "169.254.169.254"));
        for bad in ["", "10.0.0.0/33", "10.0.0", "a b", "http://x", "x..y"] {
            assert!(bad.parse::<Allow>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_keeps_its_allowed_addresses() {
        let e = egress(&["127.0.0.1"]);
        let addrs = |list: &[&str]| list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect::<Vec<_>>();
        assert_eq!(e.filter("localhost", addrs(&["::1", "127.0.0.1"]).into_iter()).unwrap(), addrs(&["127.0.0.1"]));
        let error = e.filter("rebind.example", addrs(&["169.254.169.254"]).into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("rebind.example is 169.254.169.254"), "{error}");
    }
}
