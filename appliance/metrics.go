package appliance

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"everboot/dhcp"
	"everboot/site"
	"everboot/vip/vrrp"
)

// The names of the metrics of a site and of the rooms that do not name their own.
const (
	metricView       = "everboot_view_epoch"
	metricRegistry   = "everboot_registry_reachable"
	metricStreamer   = "everboot_streamer_up"       // label streamer
	metricAnnounced  = "everboot_streamer_sessions" // label streamer
	metricService    = "everboot_boot_service_up"   // label service: tftp, http
	metricDevices    = "everboot_devices"
	metricEventsLost = "everboot_events_lost_total"

	metricVIPActive  = "everboot_vip_active"
	metricVIPSent    = "everboot_vip_advertisements_sent_total"
	metricVIPDropped = "everboot_vip_advertisements_dropped_total" // label reason
	metricVIPOdd     = "everboot_vip_oddities_total"               // label kind

	metricTFTPTransfers = "everboot_tftp_transfers_total" // label result
	metricTFTPBytes     = "everboot_tftp_sent_bytes_total"
	metricHTTPRequests  = "everboot_http_requests_total" // label result

	metricSessions  = "everboot_director_sessions"
	metricHolding   = "everboot_director_held_logins"
	metricLogins    = "everboot_director_logins_total"  // label reason
	metricDrops     = "everboot_director_dropped_total" // label reason
	metricFailovers = "everboot_director_failovers_total"
	metricFailures  = "everboot_director_streamer_failures_total" // label streamer
	metricForwarded = "everboot_director_forwarded_bytes_total"   // label direction
)

// collector reads every room's counters when somebody asks for them.
type collector struct{ w *worker }

// metrics returns what answers at /metrics.
func (w *worker) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{w})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// Describe implements prometheus.Collector. It describes nothing: which metrics there are depends on what is enabled.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// emit sends one metric; labels are name and value.
type emit func(name, help string, kind prometheus.ValueType, value float64, labels ...string)

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, value float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	}
	c.site(send)
	c.boot(send)
	if c.w.vip != nil {
		c.vip(send)
	}
	if c.w.dhcp != nil {
		c.dhcp(send)
	}
	if c.w.director != nil {
		c.director(send)
	}
}

func (c collector) site(send emit) {
	v := c.w.builder.View()
	send(metricView, "Changes of the site view since it was first made.", prometheus.CounterValue, float64(v.Epoch))
	send(metricRegistry, "Whether the registry answers.", prometheus.GaugeValue, truth(v.Registry.Reachable))
	send(metricDevices, "Devices of the site.", prometheus.GaugeValue, float64(len(v.Devices)))
	send(metricService, "Whether our probe of the boot address succeeds.", prometheus.GaugeValue, truth(v.Boot.TFTP.Health == site.Up), "service", "tftp")
	send(metricService, "Whether our probe of the boot address succeeds.", prometheus.GaugeValue, truth(v.Boot.HTTP.Health == site.Up), "service", "http")
	for _, s := range v.SortedStreamers() {
		send(metricStreamer, "Whether our own probe finds the streamer up.", prometheus.GaugeValue, truth(s.Check.Health == site.Up), "streamer", s.Name)
		send(metricAnnounced, "Sessions that the streamer announces.", prometheus.GaugeValue, float64(s.Sessions), "streamer", s.Name)
	}
	send(metricEventsLost, "Events that the timeline was too slow for.", prometheus.CounterValue, float64(c.w.lost.Load()))
}

func (c collector) vip(send emit) {
	s := c.w.vip.Status()
	send(metricVIPActive, "Whether this node owns the floating addresses.", prometheus.GaugeValue, truth(s.State == vrrp.Active))
	send(metricVIPSent, "VRRP advertisements sent.", prometheus.CounterValue, float64(s.Sent))
	for reason, n := range s.Dropped {
		send(metricVIPDropped, "VRRP advertisements dropped.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for kind, n := range s.Odd {
		send(metricVIPOdd, "VRRP advertisements that nobody meant so.", prometheus.CounterValue, float64(n), "kind", string(kind))
	}
}

func (c collector) dhcp(send emit) {
	s := c.w.dhcp.Stats()
	for message, n := range s.Messages {
		send(dhcp.MetricMessages, "DHCP messages received.", prometheus.CounterValue, float64(n), "message", message)
	}
	for answer, n := range s.Answers {
		send(dhcp.MetricAnswers, "DHCP answers sent.", prometheus.CounterValue, float64(n), "answer", answer)
	}
	for reason, n := range s.Reasons {
		send(dhcp.MetricDecisions, "What became of DHCP messages.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for reason, n := range s.Boot {
		send(dhcp.MetricBoot, "Why answers had boot options, or none.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	send(dhcp.MetricCommits, "Writes to the lease file.", prometheus.CounterValue, float64(s.Commits))
	send(dhcp.MetricCommitted, "Leases written to the lease file.", prometheus.CounterValue, float64(s.Committed))
	send(dhcp.MetricCommitErrors, "Writes to the lease file that failed.", prometheus.CounterValue, float64(s.CommitErrors))
	send(dhcp.MetricSendErrors, "DHCP answers that could not be sent.", prometheus.CounterValue, float64(s.SendErrors))
}

func (c collector) boot(send emit) {
	if c.w.tftp != nil {
		s := c.w.tftp.Stats()
		for result, n := range map[string]uint64{
			"complete": s.Complete, "size_probe": s.SizeProbes, "aborted": s.Aborted, "failed": s.Failed,
			"not_found": s.NotFound, "refused": s.Refused, "malformed": s.Malformed, "write": s.Writes,
		} {
			send(metricTFTPTransfers, "TFTP transfers by result.", prometheus.CounterValue, float64(n), "result", result)
		}
		send(metricTFTPBytes, "Bytes of files sent over TFTP.", prometheus.CounterValue, float64(s.Bytes))
	}
	if c.w.http != nil {
		s := c.w.http.Stats()
		for result, n := range map[string]uint64{"script": s.Scripts, "wait": s.Waits, "file": s.Files, "not_found": s.NotFound, "bad": s.Bad} {
			send(metricHTTPRequests, "HTTP boot requests by result.", prometheus.CounterValue, float64(n), "result", result)
		}
	}
}

func (c collector) director(send emit) {
	s := c.w.director.Stats()
	send(metricSessions, "Streams through this appliance.", prometheus.GaugeValue, float64(s.Sessions))
	send(metricHolding, "Logins that wait for a streamer.", prometheus.GaugeValue, float64(s.Holding))
	send(metricFailovers, "Logins of targets that had another streamer before.", prometheus.CounterValue, float64(s.Failovers))
	for reason, n := range s.Logins {
		send(metricLogins, "How logins ended.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for drop, n := range s.Drops {
		send(metricDrops, "Connections that ended before they were a login.", prometheus.CounterValue, float64(n), "reason", string(drop))
	}
	for name, n := range s.Failures {
		send(metricFailures, "Connections and logins that a streamer did not take.", prometheus.CounterValue, float64(n), "streamer", name)
	}
	send(metricForwarded, "Bytes forwarded.", prometheus.CounterValue, float64(s.BytesIn), "direction", "to_streamer")
	send(metricForwarded, "Bytes forwarded.", prometheus.CounterValue, float64(s.BytesOut), "direction", "to_target")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
