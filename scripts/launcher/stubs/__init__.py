"""Files that Ray and HAProxy start or import in processes of their own."""
