package lab

type capture struct{}

func (s *Segment) stopCapture()                                              {}
func (s *Segment) capturing() bool                                           { return false }
func (s *Segment) Decoded(filter string, fields ...string) ([]string, error) { return nil, nil }
