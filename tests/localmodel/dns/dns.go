// Package dns is the cluster's name server: it knows the services and pods of
// one model and nothing of the world outside.
package dns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Domain is the cluster's domain.
const Domain = "cluster.local"

// A Resolver finds the addresses of a service, or of one of its pods when the
// host name is not empty. It tells whether there is such a name.
type Resolver func(namespace, service, hostname string) (ips []string, found bool)

const (
	typeA      = 1
	typeANY    = 255
	classIN    = 1
	nameError  = 3
	headerSize = 12
)

// Listen answers questions over UDP until the connection is closed.
func Listen(address string, resolve Resolver) (net.PacketConn, error) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot serve DNS: %w", err)
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, client, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if reply := answer(buffer[:n], resolve); reply != nil {
				_, _ = conn.WriteTo(reply, client)
			}
		}
	}()
	return conn, nil
}

// answer makes the reply to a query, or nil when it cannot be understood.
func answer(query []byte, resolve Resolver) []byte {
	if len(query) < headerSize || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	name, end := question(query)
	if end == 0 || len(query) < end+4 {
		return nil
	}
	asked := binary.BigEndian.Uint16(query[end:])
	ips, found := lookup(name, resolve)
	reply := append([]byte(nil), query[:end+4]...)
	binary.BigEndian.PutUint16(reply[2:], 0x8580) // an authoritative answer
	if !found {
		reply[3] |= nameError
	}
	clear(reply[6:headerSize])
	if asked != typeA && asked != typeANY {
		return reply
	}
	for _, ip := range ips {
		address, err := netip.ParseAddr(ip)
		if err != nil || !address.Is4() {
			continue
		}
		reply[7]++
		// The question's name again, type A, class IN, 1 second to live, 4 bytes.
		reply = append(reply, 0xc0, headerSize, 0, typeA, 0, classIN, 0, 0, 0, 1, 0, 4)
		reply = append(reply, address.AsSlice()...)
	}
	return reply
}

// question reads the name that a query asks for, and where it ends.
func question(query []byte) (name string, end int) {
	var labels []string
	for at := headerSize; at < len(query); {
		size := int(query[at])
		at++
		if size == 0 {
			return strings.ToLower(strings.Join(labels, ".")), at
		}
		if size > 63 || at+size > len(query) {
			break
		}
		labels = append(labels, string(query[at:at+size]))
		at += size
	}
	return "", 0
}

// lookup understands service.namespace.svc.cluster.local and, before it, the
// host name of a pod.
func lookup(name string, resolve Resolver) (ips []string, found bool) {
	name, inCluster := strings.CutSuffix(name, ".svc."+Domain)
	labels := strings.Split(name, ".")
	switch {
	case !inCluster:
		return nil, false
	case len(labels) == 2:
		return resolve(labels[1], labels[0], "")
	case len(labels) == 3:
		return resolve(labels[2], labels[1], labels[0])
	}
	return nil, false
}
