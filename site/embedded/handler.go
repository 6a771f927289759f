package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"everboot/site"
)

// StreamersPath is where streamers announce themselves; DELETE takes the streamer's name below it.
const StreamersPath = "/api/v1/streamers"

// bodyTimeout is for how long a streamer may take to send its announcement, so that a slow one holds no connection for ever.
const bodyTimeout = 5 * time.Second

// announcer is what the handler needs of a Registry.
type announcer interface {
	announce(ctx context.Context, a announcement) (Wish, error)
	Withdraw(ctx context.Context, name string) error
}

func newHandler(r announcer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+StreamersPath, func(w http.ResponseWriter, req *http.Request) {
		// A writer that cannot do it (httptest's recorder) has no slow peer either.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		a, err := readAnnouncement(http.MaxBytesReader(w, req.Body, maxBody+1))
		if err != nil {
			refuse(w, err)
			return
		}
		wish, err := r.announce(req.Context(), a)
		if err != nil {
			refuse(w, err)
			return
		}
		respond(w, http.StatusOK, answer{Wish: wish})
	})
	mux.HandleFunc("DELETE "+StreamersPath+"/{name}", func(w http.ResponseWriter, req *http.Request) {
		name := req.PathValue("name")
		if err := site.CheckName("streamer", name); err != nil {
			refuse(w, &site.AnnouncementError{Refusal: site.BadName, Err: err})
			return
		}
		if err := r.Withdraw(req.Context(), name); err != nil {
			refuse(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// refuse answers with the reason: 413, 422 or 400 for what the streamer did wrong, 503 for what it may try again.
func refuse(w http.ResponseWriter, err error) {
	body := refused{Error: err.Error()}
	status := http.StatusServiceUnavailable
	if refusal := new(site.AnnouncementError); errors.As(err, &refusal) {
		body.Refusal = refusal.Refusal
		switch refusal.Refusal {
		case Malformed:
			status = http.StatusBadRequest
		case TooLarge:
			status = http.StatusRequestEntityTooLarge
		case TooMany:
			status = http.StatusInsufficientStorage
		default:
			status = http.StatusUnprocessableEntity
		}
	}
	respond(w, status, body)
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the peer is gone if this fails
}
