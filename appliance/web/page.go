package web

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"
)

//go:embed page.html
var pageText string

//go:embed device.html
var deviceText string

//go:embed style.css
var style string

// functions are what both pages use.
var functions = template.FuncMap{
	"ago": func(t time.Time, now time.Time) string {
		if t.IsZero() {
			return ""
		}
		return now.Sub(t).Round(time.Second).String()
	},
	"style":   func() template.CSS { return template.CSS(style) },
	"clock":   func(t time.Time) string { return t.Format("2006-01-02 15:04:05.000") },
	"after":   func(t, began time.Time) string { return fmt.Sprintf("%.3f s", t.Sub(began).Seconds()) },
	"newest":  func(list []Boot) []Boot { list = slices.Clone(list); slices.Reverse(list); return list },
	"elapsed": func(d time.Duration) string { return d.Round(time.Millisecond).String() },
}

var (
	page       = template.Must(template.New("page").Funcs(functions).Parse(pageText))
	devicePage = template.Must(template.New("device").Funcs(functions).Parse(deviceText))
)

// page is the plain status page: no script, nothing fetched from elsewhere.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) { s.write(w, page, s.backend.Status()) }

// devicePage is the page of one target.
func (s *Server) devicePage(w http.ResponseWriter, r *http.Request) {
	d, err := s.backend.Device(r.URL.Query().Get("who"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	s.write(w, devicePage, d)
}

func (s *Server) write(w http.ResponseWriter, t *template.Template, value any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := t.Execute(w, value); err != nil {
		s.log.Debug("writing a status page", "error", err)
	}
}
