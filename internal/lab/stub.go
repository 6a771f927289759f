package lab

type Machine struct{}

func (m *Machine) close()             {}
func (m *Machine) setLink(bool) error { return nil }

type capture struct{}

func (s *Segment) stopCapture()                                              {}
func (s *Segment) capturing() bool                                           { return false }
func (s *Segment) Decoded(filter string, fields ...string) ([]string, error) { return nil, nil }
