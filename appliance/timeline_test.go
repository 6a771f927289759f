package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"everboot/site"
)

// One boot is one entry however often firmware, iPXE and the OS ask for an address; the next one begins when firmware asks again.
func TestTimelineTellsBootsApart(t *testing.T) {
	line, mac, now := newTimeline(), site.MAC{1}, time.Unix(1e9, 0)
	add := func(after time.Duration, what string, begins bool) {
		now = now.Add(after)
		line.Add(site.Event{At: now, MAC: mac, What: what, Begins: begins})
	}
	boot := func() {
		add(time.Hour, "discover", true) // the ROM
		add(time.Second, "tftp", false)
		add(time.Second, "discover", true) // iPXE
		add(time.Second, "http", false)
		add(time.Second, "login", true)
		add(time.Second, "login", true)       // a second session
		add(time.Second, "block", false)      // of the disk
		add(time.Second, "login", false)      // the OS
		add(time.Second, "discover", false)   // a DHCP client of the OS
		add(100*time.Hour, "failover", false) // long after
	}
	for range bootsKept + 2 {
		boot()
	}
	add(time.Second, "discover", true) // reset right after a failover
	boots := line.Of(mac)
	var lengths []string
	for _, b := range boots {
		lengths = append(lengths, fmt.Sprint(len(b.Events)))
	}
	if got := strings.Join(lengths, " "); got != "10 10 10 1" || !boots[3].Began.Equal(now) {
		t.Errorf("boots of %s events, the last began %v", got, boots[3].Began)
	}
}

// After the clock was set back a boot is a boot of its own again.
func TestTimelineAfterTheClockWasSetBack(t *testing.T) {
	line, mac, now := newTimeline(), site.MAC{1}, time.Unix(1e9, 0)
	for _, at := range []time.Time{now, now.Add(-24 * time.Hour), now.Add(-24*time.Hour + time.Second)} {
		line.Add(site.Event{At: at, MAC: mac, What: "discover", Begins: true})
	}
	if boots := line.Of(mac); len(boots) != 2 || len(boots[1].Events) != 2 {
		t.Errorf("boots: %+v", boots)
	}
}

// Where another DHCP server answers, what asks for its script tells boots apart.
func TestTimelineTellsBootsApartWithoutDHCP(t *testing.T) {
	line, mac, now := newTimeline(), site.MAC{1}, time.Unix(1e9, 0)
	for range 2 {
		for _, e := range []site.Event{{What: "http", Begins: true}, {What: "http", Begins: true}, {What: "login", Begins: true}, {What: "block"}, {What: "login"}} {
			now = now.Add(time.Second)
			e.MAC, e.At = mac, now
			line.Add(e)
		}
	}
	if boots := line.Of(mac); len(boots) != 2 || len(boots[0].Events) != 5 || len(boots[1].Events) != 5 {
		t.Errorf("boots %+v", boots)
	}
}

// TestOthersAreToldHowAStrangersBootBegan: what a machine did before it was a device is told when it has become one.
func TestOthersAreToldHowAStrangersBootBegan(t *testing.T) {
	w := &worker{timeline: newTimeline()}
	var words []string
	for i, what := range []string{"discover", "offer", eventAdded, "ack"} {
		e := site.Event{At: time.Unix(int64(i), 0), MAC: site.MAC{2, 1}, What: what, Begins: i == 0}
		w.timeline.Add(e)
		if i < 2 {
			continue // nobody is told of a stranger
		}
		for _, told := range w.untold(e) {
			words = append(words, told.What)
		}
	}
	if text := strings.Join(words, " "); text != "discover offer added ack" {
		t.Errorf("told: %s", text)
	}
}

// TestWhoNeverBootsIsNotRemembered: a segment full of telephones that get an address must not push the boots of devices out.
func TestWhoNeverBootsIsNotRemembered(t *testing.T) {
	w := &worker{timeline: newTimeline()}
	boots, telephone, device := site.MAC{2, 1}, site.MAC{2, 2}, site.MAC{2, 3}
	for i, e := range []site.Event{
		{MAC: boots, What: "discover", Begins: true}, {MAC: boots, What: "offer"}, {MAC: boots, What: "ack"},
		{MAC: telephone, What: "ack"}, {MAC: device, What: "ack"}, {What: "health"},
	} {
		e.At = time.Unix(int64(i), 0)
		w.note(e, e.MAC == device)
	}
	for mac, want := range map[site.MAC]int{boots: 3, telephone: 0, device: 1, {}: 1} {
		got := 0
		for _, b := range w.timeline.Of(mac) {
			got += len(b.Events)
		}
		if got != want {
			t.Errorf("%d events of %s, want %d", got, mac, want)
		}
	}
}

// A boot that goes on for years keeps how it began and what happened last.
func TestTimelineOfALongBoot(t *testing.T) {
	line, mac := newTimeline(), site.MAC{1}
	for i := range 1000 {
		line.Add(site.Event{At: time.Unix(int64(i), 0), MAC: mac, What: "failover", Detail: fmt.Sprint(i)})
	}
	boots := line.Of(mac)
	if len(boots) != 1 || len(boots[0].Events) != bootEvents || boots[0].LeftOut != 1000-bootEvents {
		t.Fatalf("%d boots, %+v", len(boots), boots)
	}
	if e := boots[0].Events; e[0].Detail != "0" || e[bootHead-1].Detail != fmt.Sprint(bootHead-1) || e[len(e)-1].Detail != "999" {
		t.Errorf("kept %v", e)
	}
}

// Strangers' MACs cost no more memory than is set aside, and the oldest boots go first.
func TestTimelineIsBounded(t *testing.T) {
	line := newTimeline()
	detail := strings.Repeat("x", 1000)
	const strangers = 2 * timelineSize / 1000
	mac := func(i int) site.MAC { return site.MAC{byte(i >> 16), byte(i >> 8), byte(i)} }
	for i := range strangers {
		line.Add(site.Event{At: time.Unix(int64(i), 0), MAC: mac(i), What: "discover", Detail: detail, Begins: true})
	}
	if line.size > timelineSize || line.order.Len() != len(line.byMAC) || len(line.byMAC)*(bootSize+eventSize+1000) != line.size {
		t.Errorf("%d bytes in %d boots of %d machines", line.size, line.order.Len(), len(line.byMAC))
	}
	if len(line.Of(mac(0))) != 0 || len(line.Of(mac(strangers-1))) != 1 {
		t.Error("the oldest did not go first")
	}
}

// What another appliance tells comes a little late, and stands where it belongs; nonsense and what is too long are nobody's event.
func TestTimelineTakesAnothersWord(t *testing.T) {
	line, mac, now := newTimeline(), site.MAC{1}, time.Unix(1e9, 0).UTC()
	line.Add(site.Event{At: now, MAC: mac, What: "discover", Begins: true})
	line.Add(site.Event{At: now.Add(2 * time.Second), MAC: mac, What: "http"})
	line.Add(site.Event{At: now.Add(3 * time.Second), MAC: mac, What: "login", Begins: true})
	sent := site.Event{At: now.Add(time.Second), MAC: mac, What: "tftp", Detail: "a file", Begins: true}
	got, ok := decodeEvent(encodeEvent(sent))
	if !ok || got != sent {
		t.Fatalf("got %+v, %v", got, ok)
	}
	line.Add(got)
	line.Add(got)
	var words []string
	for _, b := range line.Of(mac) {
		for _, e := range b.Events {
			words = append(words, e.What)
		}
	}
	if text := strings.Join(words, " "); text != "discover tftp http login" {
		t.Errorf("the events are %s", text)
	}
	for _, bad := range []string{"", "\x01", "\x01{", "\x02{}", "\x01{}", string(encodeEvent(site.Event{What: "x"})), string(encodeEvent(site.Event{MAC: mac, What: "x", Detail: strings.Repeat("x", maxEventText)}))} {
		if e, ok := decodeEvent([]byte(bad)); ok {
			t.Errorf("%q is taken: %+v", bad, e)
		}
	}
}
