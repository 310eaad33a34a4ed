package lan

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// What a stranger may send, and what is taken of it.
func TestAnswers(t *testing.T) {
	rr := func(text string) dns.RR {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	m := &dns.Msg{
		Answer: []dns.RR{
			rr("_forever._tcp.local. 120 IN PTR one._forever._tcp.local."),
			rr("one._forever._tcp.local. 120 IN SRV 10 1 4747 host.local."),
			rr("two._forever._tcp.local. 120 IN SRV 10 1 4748 nowhere.local."),
			rr("three._other._tcp.local. 120 IN SRV 10 1 80 host.local."),
			rr("four._forever._tcp.local. 120 IN SRV 10 1 0 host.local."),
		},
		Extra: []dns.RR{
			rr("host.local. 120 IN A 10.1.2.3"), rr("HOST.local. 120 IN AAAA fd00::1"), rr("host.local. 120 IN AAAA fe80::1"),
			rr("host.local. 120 IN A 224.0.0.1"), rr("host.local. 120 IN A 0.0.0.0"),
		},
	}
	want := []answer{{"one", "10.1.2.3:4747"}, {"one", net.JoinHostPort("fd00::1", "4747")}}
	if diff := cmp.Diff(want, answers(m), cmp.AllowUnexported(answer{})); diff != "" {
		t.Error(diff)
	}
}

// A packet may give one host many names and many addresses, and so any name any address.
func TestFewAnswersOfAPacket(t *testing.T) {
	m := &dns.Msg{}
	for i := range 200 {
		m.Answer = append(m.Answer, &dns.SRV{Hdr: dns.RR_Header{Name: fmt.Sprintf("%d.%s.%s", i, service, domain)}, Port: 4747, Target: "host."})
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "host."}, A: net.IPv4(10, 0, 0, byte(i+1))})
	}
	got := answers(m)
	if len(got) != maxFound {
		t.Errorf("%d answers, want %d", len(got), maxFound)
	}
	m.Answer = slices.Repeat(m.Answer[:1], 100)
	m.Extra = slices.Repeat(m.Extra[:1], 100)
	if got := answers(m); len(got) != 1 {
		t.Errorf("%d answers that are the same", len(got))
	}
}

func TestRecognise(t *testing.T) {
	volume, other := [16]byte{1}, [16]byte{2}
	a, b := [32]byte{1}, [32]byte{2}
	const hour = 500_000
	asked := 0
	names := namesAt(hour, volume, func() [][32]byte { asked++; return [][32]byte{a, b} })
	for off := int64(-1); off <= 1; off++ {
		if d, ours := names.recognise(instance(volume, b, hour+off)); !ours || d != b {
			t.Errorf("an hour off by %d: %v, %v", off, d, ours)
		}
	}
	if _, ours := names.recognise(instance(volume, b, hour+2)); ours {
		t.Error("a name of two hours later passes")
	}
	if _, ours := names.recognise(instance(other, b, hour)); ours {
		t.Error("a device of another volume passes")
	}
	if d, ours := names.recognise(instance(volume, [32]byte{3}, hour)); !ours || d != [32]byte{} {
		t.Errorf("a device that is not known: %v, %v", d, ours)
	}
	for _, name := range []string{"", "-", "x-y", instance(volume, a, hour)[:20]} {
		if d, ours := names.recognise(name); ours && d != [32]byte{} {
			t.Errorf("%q is taken for %v", name, d)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times which devices there are", asked)
	}
	if instance(volume, a, hour) == instance(volume, a, hour+1) {
		t.Error("the name stays the same")
	}
}
