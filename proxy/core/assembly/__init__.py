"""An answer's other form: recorded events to the JSON body that they make up, and a JSON body to events; see `forms`."""
