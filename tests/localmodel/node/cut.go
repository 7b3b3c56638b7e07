package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// A Cut says which packets vanish on a pod's cable, without anybody being told.
// Those of the kubelet's probes pass: a kubelet is on its pods' own machine.
type Cut struct {
	In, Out bool           // all that go to the pod, all that come from it
	Service netip.AddrPort // or only those to and from this one
}

// probes are the ports of Pebble that a kubelet asks: that of the charm container
// and those of the first workloads.
const probes = "38812-38819"

// rules are the cut for nft(8), at the machine's end of the cable: what comes
// in there is what the pod sends. ARP passes, it reaches no further than the cable.
func (c Cut) rules(device string) string {
	var sent, received string
	switch {
	case c.Service.IsValid():
		at := fmt.Sprintf("ip %%[1]s %s tcp %%[2]s %d drop", c.Service.Addr(), c.Service.Port())
		sent, received = fmt.Sprintf(at, "daddr", "dport"), fmt.Sprintf(at, "saddr", "sport")
	default:
		if c.Out {
			sent = "ether type arp accept; tcp sport " + probes + " accept; drop"
		}
		if c.In {
			received = "ether type arp accept; tcp dport " + probes + " accept; drop"
		}
	}
	return fmt.Sprintf(`table netdev %[1]s {
	chain sent {
		type filter hook ingress device %[1]s priority 0
		%[2]s
	}
	chain received {
		type filter hook egress device %[1]s priority 0
		%[3]s
	}
}
`, device, cmp.Or(sent, "accept"), cmp.Or(received, "accept"))
}

// CutCable cuts a pod's cable, given as this machine's end of it.
func CutCable(device string, cut Cut) error { return nft(cut.rules(device)) }

// MendCable undoes CutCable.
func MendCable(device string) error { return nft(fmt.Sprintf("delete table netdev %s", device)) }

// Cut lets packets from and to the pod vanish, until Mend.
func (p *Pod) Cut(cut Cut) error { return CutCable(p.device, cut) }

// Mend undoes Cut.
func (p *Pod) Mend() error { return MendCable(p.device) }

// nft runs commands of nft(8).
func nft(commands string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot change network: nft: %s (%w)", strings.TrimSpace(string(out)), err)
	}
	return nil
}
