FROM busybox AS build
ENV NAME=world
RUN <<EOF
echo hello
echo $NAME
EOF
RUN <<SCRIPT
#!/usr/bin/env python3
print("hello")
SCRIPT
RUN <<ONE cat - <<-TWO
one
ONE
	two
	TWO
COPY <<EOF <<'RAW' /texts/
hello $NAME
EOF
not expanded: $NAME
RAW
