package appliance

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"everboot/site"
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
	c.standIns(send)
	if c.w.vip != nil {
		c.vip(send)
	}
	if c.w.peers != nil {
		c.peers(send)
	}
	if c.w.dhcp != nil {
		c.dhcp(send)
	}
	if c.w.proxy != nil {
		c.proxy(send)
	}
	if c.w.search != nil {
		c.search(send)
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

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
