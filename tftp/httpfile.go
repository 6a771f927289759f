package tftp

import (
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"everboot/site"
)

func (h *HTTP) serveFile(w http.ResponseWriter, r *http.Request) {
	file, err := h.files.Open(r.URL.Path)
	if err != nil {
		h.notFound.Add(1)
		h.log.Debug("http: no such file", "path", r.URL.Path, "client", r.RemoteAddr, "err", err)
		_, _, text := wireError(err)
		http.Error(w, text, statusOf(err))
		return
	}
	defer file.Close()
	h.served.Add(1)
	w.Header().Set("ETag", h.tag(r, file))
	w.Header().Set("Content-Type", contentType(file.Name))
	http.ServeContent(w, r, file.Name, file.ModTime, file.Content)
	mac, err := site.ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		mac = site.MAC{} // firmware asks without one
	}
	h.tell(r, site.Event{MAC: mac, Detail: file.Name})
}

// tag returns the entity tag that a request is answered with. A client that goes on elsewhere than where it began must find the tag that it was given
// there: it waits until the file is read, and one with a tag of ours from before it was read is answered with that. Who begins does not wait.
func (h *HTTP) tag(r *http.Request, file *File) string {
	given := strings.Join([]string{r.Header.Get("If-Range"), r.Header.Get("If-Match"), r.Header.Get("If-None-Match")}, " ")
	switch {
	case strings.Contains(given, file.ETag):
		return file.ETag
	case strings.Contains(given, `"`):
		return h.files.Tag(r.Context(), file, resumePatience)
	}
	return h.files.Tag(r.Context(), file, 0)
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.Is(err, fs.ErrInvalid):
		return http.StatusBadRequest
	}
	return http.StatusForbidden
}

// contentType names the type of a boot file. UEFI HTTP boot tells a program from a disk image by it (UEFI 2.10 §24.7.3.1).
func contentType(name string) string {
	switch path.Ext(name) {
	case ".efi":
		return "application/efi"
	case ".iso":
		return "application/vnd.efi-iso"
	case ".img":
		return "application/vnd.efi-img"
	case ".ipxe", ".txt", ".cfg":
		return mime.FormatMediaType("text/plain", map[string]string{"charset": "utf-8"})
	}
	return "application/octet-stream"
}
